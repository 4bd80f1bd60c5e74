"""Worker entries for the pool's tests. They import little, so that they start fast."""

import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import NoReturn

from consumer.transport.controls import BootFailed, FromWorker, Ready, encode
from consumer.transport.ends import WorkerEnds
from consumer.transport.packets import PACKET_MAX, Kind


def say(ends: WorkerEnds, control: FromWorker) -> None:
    """Send a control as WorkerEnd does."""
    ends.socket.send(bytes([Kind.CONTROL]) + encode(control))


def sit(_spec: object, ends: WorkerEnds) -> None:
    """Be ready, read everything, end with the supervisor."""
    say(ends, Ready("cpu"))
    while ends.socket.recv(PACKET_MAX):
        pass


def echo(_spec: object, ends: WorkerEnds) -> None:
    """Answer every record with its payload."""
    from tests.transport import children

    children.echo(ends)


def report(spec: object, ends: WorkerEnds) -> None:
    """Say what was found at birth."""
    found = {
        "spec": spec,
        "variable": os.environ.get("POOL_TEST"),
        "main": sys.modules["__main__"].__dict__.get("__file__"),
        "imported": sorted({"pytest", "torch", "numpy", "confluent_kafka"} & {*sys.modules}),
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "ignored": [signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGINT, signal.SIGTERM)],
    }
    say(ends, Ready(repr(found)))
    ends.socket.recv(PACKET_MAX)


def measure(spec: bytes, ends: WorkerEnds) -> None:
    """Say how large the spec was."""
    say(ends, Ready(str(len(spec))))
    ends.socket.recv(PACKET_MAX)


def refuse(_spec: object, ends: WorkerEnds) -> NoReturn:
    """Fail to boot, as the worker does."""
    say(ends, BootFailed("no device 7"))
    sys.exit(3)


def leave(code: int, _ends: WorkerEnds) -> NoReturn:
    """Exit before being ready."""
    sys.exit(code)


def leave_when_ready(code: int, ends: WorkerEnds) -> NoReturn:
    """Exit after having been ready."""
    say(ends, Ready("cpu"))
    sys.exit(code)


def die(_spec: object, _ends: WorkerEnds) -> None:
    """Be killed before being ready, as by the kernel when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def leave_a_grandchild(_spec: object, ends: WorkerEnds) -> None:
    """Exit, while a process that was forked keeps every descriptor open until the supervisor closes the channel."""
    say(ends, Ready("cpu"))
    if os.fork() == 0:
        ends.socket.recv(PACKET_MAX)
        os._exit(0)
    os._exit(7)


def stay(_spec: object, ends: WorkerEnds) -> None:
    """Close the channel, and stay."""
    say(ends, Ready("cpu"))
    ends.socket.close()
    signal.pause()


def hang(_spec: object, ends: WorkerEnds) -> None:
    """Be ready, then notice nothing any more, the supervisor's end neither."""
    say(ends, Ready("cpu"))
    signal.pause()


def babble(_spec: object, ends: WorkerEnds) -> None:
    """Say something that cannot be."""
    say(ends, Ready("cpu"))
    ends.socket.send(bytes([Kind.ANSWER]) * 3)
    signal.pause()


def supervise(pipe: Connection) -> None:
    """Be a supervisor with two workers, tell their process ids, and notice nothing any more."""
    from consumer.core.actions import Spawn
    from consumer.core.types import WorkerId
    from consumer.supervisor.pool import Launch, Pool, PoolOptions
    from consumer.transport.channel import ChannelOptions

    with Pool(sit, [Launch(None), Launch(None)], PoolOptions(), ChannelOptions()) as pool:
        ready = 0
        for slot in (0, 1):
            pool.perform(Spawn(slot, WorkerId(slot)))
        while ready < 2:
            ready += len(pool.wait(10.0))
        pipe.send([member.process.pid for member in pool._members.values()])
        signal.pause()


def bombard(number: int) -> None:
    """Be a supervisor that sends its first worker signals until it is ready, and print what it said."""
    from consumer.core.actions import Spawn
    from consumer.core.types import WorkerId
    from consumer.supervisor.pool import Launch, Pool, PoolOptions
    from consumer.transport.channel import ChannelOptions

    with Pool(sit, [Launch(None)], PoolOptions(), ChannelOptions()) as pool:
        pool.perform(Spawn(0, WorkerId(1)))
        (member,) = pool._members.values()
        assert member.process.pid is not None
        while not (events := pool.wait(0.0)):
            os.kill(member.process.pid, number)
        sys.stdout.write(f"{events}\n")
