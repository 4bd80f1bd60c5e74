"""The members of the group under faults: started, killed, frozen, sent away, and started again.

Owns the programs' processes and the broker's node, and does to them what a plan says. Must not know what is sent or
what comes out. The first member and its first worker are spared what ends a process, so that there is somebody whose
memory can be watched to the end.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from consumer.demo.broker import BrokerError, Node
from consumer.demo.broker import Kind as BrokerKind
from consumer.errors import ExitCode
from tests.e2e.stage import Program, Stage
from tests.soak.plan import Fault, Kind

READY_S_MAX = 180.0
"""How long the first start of all members together may take, workers included."""
STOP_TIMEOUT_S = 50.0
"""A drain, the close of the client and the workers' end, each at its own limit, and a little."""


@dataclass(slots=True)
class Member:
    """One supervisor, under one name through all its restarts."""

    name: str
    program: Program
    is_spared: bool
    busy: threading.Lock = field(default_factory=threading.Lock)
    """Held by the fault that it suffers from."""
    is_expected_to_end: bool = False


class Crew:
    """Everybody who can be hurt."""

    def __init__(self, stage: Stage, members: int, workers: int, flag: Path) -> None:
        """Start the members.

        Args:
            stage: The world that they serve.
            members: Supervisors to start.
            workers: Worker processes of each.
            flag: While this file is there, one model fails everything.
        """
        self._stage = stage
        self._workers = workers
        self._flag = flag
        self._lock = threading.Lock()
        self._broker = threading.Lock()
        self._broker_faults = 0
        self.has_lost_broker = False
        """Whether the broker could not be started again: then the soak is over."""
        self._members = [Member(f"member-{n}", self._start(), is_spared=n == 0) for n in range(members)]
        self._guests = 0
        self.violations: list[str] = []

    @property
    def may_hurt_broker(self) -> bool:
        """Tell whether the broker is a process of ours, and one that keeps what it has when it is killed."""
        return self._stage.broker.node is not None and self._stage.broker.kind is not BrokerKind.EMBEDDED

    def wait_ready(self) -> None:
        """Wait until every member serves."""
        for member in self._members:
            member.program.wait_ready(READY_S_MAX)

    def processes(self) -> dict[int, str]:
        """Name the processes that run now, by their id."""
        found: dict[int, str] = {}
        with self._lock:
            members = list(self._members)
        for member in members:
            process = member.program.process
            if process.poll() is None:
                found[process.pid] = f"{member.name} supervisor {process.pid}"
                for pid in _workers(member.program):
                    found[pid] = f"{member.name} worker {pid}"
        return found

    def do(self, fault: Fault) -> Callable[[], None] | None:
        """Let a fault begin; return what ends it. None where there is nobody who can be hurt that way now."""
        match fault.kind:
            case Kind.KILL_WORKER | Kind.FREEZE_WORKER:
                return self._hurt_worker(fault)
            case Kind.KILL_SUPERVISOR | Kind.FREEZE_SUPERVISOR | Kind.LEAVE:
                return self._hurt_member(fault)
            case Kind.JOIN:
                return self._invite()
            case Kind.KILL_BROKER | Kind.FREEZE_BROKER:
                return self._hurt_broker(fault)
            case Kind.BREAK_MODEL:
                self._flag.touch()
                return lambda: self._flag.unlink(missing_ok=True)

    def look(self) -> None:
        """Note members that ended though nobody ended them; start those again that found no broker at their start."""
        with self._lock:
            members = list(self._members)
        for member in members:
            exit_code = member.program.process.poll()
            if exit_code is None or member.is_expected_to_end:
                continue
            member.is_expected_to_end = True
            if exit_code == ExitCode.BROKER and self._broker_faults:
                # It says so and ends; whoever runs it starts it again.
                member.program = self._start()
                member.is_expected_to_end = False
            else:
                self.violations.append(f"{member.name} ended by itself with {exit_code}: {_said(member.program)}")

    def end(self) -> None:
        """Ask every member to end, all at once; each has to drain and exit with 0 in time."""
        with self._lock:
            members = list(self._members)
        ends = [threading.Thread(target=self._stop, args=[member]) for member in members]
        for each in ends:
            each.start()
        for each in ends:
            each.join()

    def _start(self) -> Program:
        """Start a program; one at a time, since each gets the next number."""
        with self._lock:
            return self._stage.start(self._workers)

    # -- faults

    def _hurt_worker(self, fault: Fault) -> Callable[[], None] | None:
        with self._lock:
            members = list(self._members)
        pids = [pid for member in members for pid in _workers(member.program)[1 if member.is_spared else 0 :]]
        if not pids:
            return None
        pid = pids[int(fault.choice * len(pids))]
        is_kill = fault.kind is Kind.KILL_WORKER
        _signal(pid, signal.SIGKILL if is_kill else signal.SIGSTOP)
        return lambda: None if is_kill else _signal(pid, signal.SIGCONT)

    def _hurt_member(self, fault: Fault) -> Callable[[], None] | None:
        is_freeze = fault.kind is Kind.FREEZE_SUPERVISOR
        member = self._take(fault.choice, with_spared=is_freeze)
        if member is None:
            return None
        if is_freeze:
            member.program.process.send_signal(signal.SIGSTOP)

            def thaw() -> None:
                member.program.process.send_signal(signal.SIGCONT)
                member.busy.release()

            return thaw
        member.is_expected_to_end = True
        if fault.kind is Kind.KILL_SUPERVISOR:
            member.program.kill()
        else:
            self._stop(member)

        def restart() -> None:
            member.program = self._start()
            member.is_expected_to_end = False
            member.busy.release()

        return restart

    def _invite(self) -> Callable[[], None]:
        self._guests += 1
        guest = Member(f"guest-{self._guests}", self._start(), is_spared=False)
        guest.busy.acquire()
        with self._lock:
            self._members.append(guest)

        def leave() -> None:
            self._stop(guest)
            with self._lock:
                self._members.remove(guest)

        return leave

    def _hurt_broker(self, fault: Fault) -> Callable[[], None] | None:
        node = self._stage.broker.node
        if node is None or not self._broker.acquire(blocking=False):
            return None
        self._broker_faults += 1
        is_kill = fault.kind is Kind.KILL_BROKER
        node.kill(signal.SIGKILL if is_kill else signal.SIGSTOP)

        def heal() -> None:
            try:
                if is_kill:
                    self._restart(node)
                else:
                    node.kill(signal.SIGCONT)
            finally:
                self._broker.release()

        return heal

    def _restart(self, node: Node) -> None:
        try:
            node.start()
        except BrokerError:
            self.has_lost_broker = True
            raise

    def _take(self, choice: float, *, with_spared: bool) -> Member | None:
        """Pick a member that no fault has now, and keep it for this one."""
        with self._lock:
            members = [each for each in self._members if with_spared or not each.is_spared]
        first = int(choice * len(members))
        for member in members[first:] + members[:first]:
            if member.busy.acquire(blocking=False):
                return member
        return None

    def _stop(self, member: Member) -> None:
        """Ask a member to end, and judge how it does."""
        member.is_expected_to_end = True
        if member.program.process.poll() is not None:
            return
        faults, is_hurt = self._broker_faults, self._broker.locked()
        began_s = time.monotonic()
        try:
            exit_code = member.program.stop(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            member.program.kill()
            self.violations.append(f"{member.name} did not end within {STOP_TIMEOUT_S:.0f} s of SIGTERM")
            return
        if exit_code == -signal.SIGTERM and not member.program.log.stat().st_size:
            return  # it had not begun yet
        # Without a broker it cannot commit, and says so by its exit code.
        if exit_code != 0 and not is_hurt and faults == self._broker_faults:
            took_s = time.monotonic() - began_s
            said = _said(member.program)
            self.violations.append(f"{member.name} ended with {exit_code} {took_s:.1f} s after SIGTERM: {said}")


def _workers(program: Program) -> list[int]:
    """Find a program's workers, oldest first; none where it is gone."""
    try:
        return program.workers()
    except OSError:
        return []


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _said(program: Program) -> str:
    """Quote the end of a program's log."""
    return " | ".join(program.log.read_text(errors="replace").splitlines()[-5:])
