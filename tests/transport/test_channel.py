"""The channel, with a real spawned process at the other end."""

import os
import subprocess
import sys
import threading
import time
from ast import literal_eval
from dataclasses import replace

import pytest

from consumer.core.events import Answered, Event, ModelFailed, ModelLoaded, ModelProbed, WorkerReady
from consumer.core.types import ChunkId, Failure, WorkerId
from consumer.transport.channel import PACKETS_MAX, Channel, ChannelClosedError, ChannelOptions
from consumer.transport.controls import LoadModel, ProbeModel, Ready, encode
from consumer.transport.packets import WANT_ROOM, Kind
from consumer.transport.worker_end import Work, WorkerEnd
from tests.transport import children
from tests.transport.chunks import Pair, chunk, open_descriptors, run, wait_until_blocked
from tests.transport.conftest import Connect

SMALL = 1 << 16


def is_empty(channel: Channel) -> bool:
    """Tell whether the whole inbox, of the size SMALL, is free."""
    if (start := channel._extents.take(SMALL)) is None:
        return False
    channel._extents.free(start, SMALL)
    return True


def test_records_come_back_as_they_went(connect: Connect) -> None:
    """Payloads of any size, none included, and offsets arrive as they were; a tombstone arrives empty."""
    pair = connect(children.echo)
    values = [b"a", b"", None, bytes(range(256)) * 40]
    pair.channel.send_chunk(chunk(1, run(values, offset=2**40), run([b"other"], partition=3, offset=9)), None)
    assert pair.receive() == [
        Answered(
            worker=WorkerId(1),
            chunk=ChunkId(1),
            first=0,
            count=5,
            values=(b"a", b"", b"", bytes(range(256)) * 40, b"other"),
            keys=(*(str(2**40 + i).encode() for i in range(4)), b"9"),
            failures={},
            rows=7,
            queue_s=0.25,
            infer_s=0.5,
            size=4 * 5 + 10_246 + 4 * 5 + 4 * 13 + 1,  # lengths included, where they differ
            rows_enough=5,
        )
    ]


def test_a_worker_is_told_where_records_come_from(connect: Connect) -> None:
    """Model, sources, times, content types and missing values are columns of the work; its memory is read-only."""
    pair = connect(children.describe)
    runs = [run([b"x", None], offset=5, fetched_s=0.5), replace(run([b"y"], partition=2), offsets=range(8, 9))]
    pair.channel.send_chunk(replace(chunk(1, *runs), is_suspect=True), ["application/json", None, None])
    (answered,) = pair.receive_answers(1)
    assert literal_eval(answered.values[0].decode()) == (
        "fraud",
        3,
        [5, 6, 8],
        [("requests", 0, 2), ("requests", 2, 1)],
        [0.5, 1.5],
        ["application/json", None, None],
        [1],
        True,
        True,
    )
    assert answered.keys == [None, None, None]


def test_an_answer_may_come_in_parts_and_in_arrays(connect: Connect) -> None:
    """Arrays become the same cells as lists; failures keep their place in the chunk and lose what UTF-8 cannot say."""
    pair = connect(children.answer_arrays)
    pair.channel.send_chunk(chunk(1, run([b"one", b"three", b""])), None)
    answers = pair.receive_answers(3)
    assert [answered.first for answered in answers] == [0, 1, 2]
    assert [answered.values for answered in answers] == [(b"one",), (b"three",), (b"",)]
    assert [answered.keys for answered in answers] == [(b"kkk",)] * 3
    failure = Failure("wrong-input", "RecordError", "lone ? surrogate")
    assert [answered.failures for answered in answers] == [{}, {}, {2: failure}]


def test_controls_are_answered_in_order(connect: Connect) -> None:
    """Loading, failing and probing become events that name worker and model."""
    pair = connect(children.echo)
    for control in (LoadModel("fraud"), LoadModel("broken"), ProbeModel("fraud")):
        pair.channel.send(control)
    events: list[Event] = []
    while len(events) < 3:
        events += pair.receive()
    assert events == [
        ModelLoaded(WorkerId(1), "fraud", "1", 0.5),
        ModelFailed(WorkerId(1), "broken", children.NO_FILE),
        ModelProbed(WorkerId(1), "fraud"),
    ]


def test_values_are_read_from_shared_memory_until_released(connect: Connect) -> None:
    """A run's payloads stay readable after sending, in every way a sequence is read, and not after the release."""
    pair = connect(children.echo)
    values = [b"a", None, b"ccc", b""]
    first, second = run(values), run([b"z"])
    pair.channel.send_chunk(chunk(1, first, second), None)
    assert first.values is not values
    assert list(first.values) == values
    assert first.values[:] == values
    assert first.values[1:3] == [None, b"ccc"]
    assert (first.values[0], first.values[-2], len(first.values)) == (b"a", b"ccc", 4)
    assert first.part(2, 4).values == [b"ccc", b""]
    assert list(first.pick([3, 0]).values) == [b"", b"a"]
    assert second.values[0] == b"z"
    with pytest.raises(IndexError):
        first.values[4]
    pair.receive_answers(1)
    pair.channel.release(ChunkId(1))
    with pytest.raises(AssertionError, match="released"):
        first.values[0]


def test_values_outlive_their_worker_and_go_to_another(connect: Connect) -> None:
    """Payloads that a killed worker had are sent to the next one from its memory."""
    pair, other = connect(children.answer_once), connect(children.echo)
    values: list[bytes | None] = [b"kept", None, b"safe" * 5000]
    lost = chunk(2, run(values))
    pair.channel.send_chunk(chunk(1, run([b"x"])), None)
    pair.channel.send_chunk(lost, None)
    pair.receive_answers(1)
    pair.process.kill()
    assert pair.receive_until_closed() == []
    pair.channel.close()
    other.channel.send_chunk(replace(lost, chunk=ChunkId(3)), None)
    (answered,) = other.receive_answers(1)
    assert answered.values == (b"kept", b"", b"safe" * 5000)
    assert list(lost.runs[0].values) == values


def test_memory_is_reused_only_when_both_sides_are_done(connect: Connect) -> None:
    """A chunk that the core gives up early keeps its place until the worker has answered it."""
    pair = connect(children.read_after_release, inbox_bytes=SMALL)
    values = [bytes([i]) * 1000 for i in range(50)]
    pair.channel.send_chunk(chunk(1, run(values)), None)
    pair.channel.release(ChunkId(1))
    assert not is_empty(pair.channel)
    pair.channel.send_chunk(chunk(2, run(values[::-1])), None)
    first, second = pair.receive_answers(2)
    assert list(first.values) == values
    assert list(second.values) == values[::-1]
    assert is_empty(pair.channel)


def test_released_memory_is_used_again(connect: Connect) -> None:
    """A hundred times the inbox goes through it, at its very beginning."""
    pair = connect(children.echo, inbox_bytes=SMALL, outbox_bytes=SMALL)
    before = open_descriptors()
    for number in range(200):
        pair.channel.send_chunk(chunk(number, run([bytes([number]) * 5000] * 6)), None)
        (answered,) = pair.receive_answers(1)
        assert answered.values == (bytes([number]) * 5000,) * 6
        pair.channel.release(ChunkId(number))
        assert is_empty(pair.channel)
    assert open_descriptors() - before == set()


def test_what_does_not_fit_takes_memory_of_its_own(connect: Connect) -> None:
    """Records larger than inbox and outbox, and chunks beyond a full inbox, arrive; no descriptor is left over."""
    pair = connect(children.echo, inbox_bytes=SMALL, outbox_bytes=SMALL)
    before = open_descriptors()
    for number in range(20):
        large = os.urandom(10 * SMALL)
        sent = chunk(number, run([b"small", large]))
        pair.channel.send_chunk(sent, None)
        (answered,) = pair.receive_answers(1)
        assert answered.values == (b"small", large)
        assert list(sent.runs[0].values) == [b"small", large]
        pair.channel.release(ChunkId(number))
    del sent
    assert open_descriptors() - before == set()
    for number in range(100, 110):
        pair.channel.send_chunk(chunk(number, run([bytes([number]) * 30_000])), None)
    assert pair.channel._extents.take(30_000) is None
    answers = pair.receive_answers(10)
    assert [answered.values[0] for answered in answers] == [bytes([number]) * 30_000 for number in range(100, 110)]


def test_a_worker_lets_go_of_memory_that_comes_along(connect: Connect) -> None:
    """Chunks with memory of their own leave no descriptor open in the worker either."""
    pair = connect(children.count_descriptors, inbox_bytes=SMALL)
    counts: set[bytes] = set()
    for number in range(20):
        pair.channel.send_chunk(chunk(number, run([bytes(2 * SMALL)])), None)
        (answered,) = pair.receive_answers(1)
        counts.update(answered.values)
    assert len(counts) == 1


def test_nothing_blocks_with_both_sockets_full(connect: Connect) -> None:
    """Packets beyond what both sockets take wait beside, and all of them are answered in the end."""
    pair = connect(children.echo)
    for number in range(3000):
        pair.channel.send_chunk(chunk(number, run([b"%d" % number])), None)
    assert pair.process.pid is not None
    wait_until_blocked(pair.process.pid)
    for number in range(3000, 4000):
        pair.channel.send_chunk(chunk(number, run([b"%d" % number])), None)
    assert len(pair.channel._backlog) > 1000, "the test is to fill the socket"
    answers = pair.receive_answers(4000)
    assert [answered.values[0] for answered in answers] == [b"%d" % number for number in range(4000)]
    assert not pair.channel._backlog


def test_nothing_blocks_with_both_areas_full(connect: Connect) -> None:
    """Many times inbox and outbox are under way before the supervisor reads anything; all of it arrives."""
    pair = connect(children.echo, inbox_bytes=SMALL, outbox_bytes=SMALL)
    values = [os.urandom(500) for _ in range(40)]
    for number in range(150):
        pair.channel.send_chunk(chunk(number, run(values)), None)
    assert pair.process.pid is not None
    wait_until_blocked(pair.process.pid)
    answers = pair.receive_answers(150)
    assert [answered.chunk for answered in answers] == list(range(150))
    assert all(answered.values == tuple(values) for answered in answers)


def test_a_worker_that_waits_for_room_keeps_what_it_receives(connect: Connect) -> None:
    """Chunks and controls that come while the outbox is full are taken up afterwards, in their order."""
    pair = connect(children.load_while_waiting, outbox_bytes=SMALL)
    pair.channel.send_chunk(chunk(1, run([bytes(10_000)] * 40)), None)
    assert pair.process.pid is not None
    wait_until_blocked(pair.process.pid)
    pair.channel.send(LoadModel("a"))
    pair.channel.send_chunk(chunk(2, run([b"later"])), None)
    pair.channel.send(LoadModel("b"))
    events: list[Event] = []
    while len(events) < 43:
        events += pair.receive()
    assert all(isinstance(event, Answered) and event.values == (bytes(10_000),) for event in events[:40])
    loaded, answered, loaded_too = events[40:]
    assert loaded == ModelLoaded(WorkerId(1), "a", "stashed", 0.0)
    assert isinstance(answered, Answered)
    assert answered.values == (b"later",)
    assert loaded_too == ModelLoaded(WorkerId(1), "b", "stashed", 0.0)


def test_a_supervisor_reads_a_bounded_number_of_packets_at_once(connect: Connect) -> None:
    """A flood of answers does not keep the supervisor's loop from turning."""
    pair = connect(children.echo)
    for number in range(3 * PACKETS_MAX):
        pair.channel.send_chunk(chunk(number, run([b"x"])), None)
    assert pair.process.pid is not None
    wait_until_blocked(pair.process.pid)
    assert len(pair.channel.receive()) == PACKETS_MAX


def test_a_worker_killed_in_the_middle_of_a_write(connect: Connect) -> None:
    """Answers before it arrive whole, the half one not at all, and the supervisor is not blocked."""
    pair = connect(children.die_in_the_middle)
    for number in (1, 2, 3):
        pair.channel.send_chunk(chunk(number, run([bytes([number]) * 100_000])), None)
    (answered,) = pair.receive_until_closed()
    assert isinstance(answered, Answered)
    assert answered.values == (b"\x01" * 100_000,)


@pytest.mark.parametrize("chunks", [2, 1000])
def test_answers_of_a_worker_killed_with_unread_chunks(connect: Connect, chunks: int) -> None:
    """The kernel tells first that packets were lost, then gives what the worker had said before: none of it is lost."""
    pair = connect(children.answer_once)
    for number in range(chunks):
        pair.channel.send_chunk(chunk(number, run([b"%d" % number])), None)
    assert pair.process.pid is not None
    wait_until_blocked(pair.process.pid)
    assert bool(pair.channel._backlog) == (chunks == 1000)
    pair.process.kill()
    pair.process.join(20)
    (answered,) = pair.receive_until_closed()
    assert isinstance(answered, Answered)
    assert answered.values == (b"0",)
    with pytest.raises(ChannelClosedError):
        pair.channel.send_chunk(unsent := chunk(1000, run(values := [b"unsent"])), None)
    assert unsent.runs[0].values is values
    with pytest.raises(ChannelClosedError):
        pair.channel.send(LoadModel("fraud"))


@pytest.mark.parametrize("answers", [0, 1, 7, 100, 400])
def test_workers_killed_at_any_time(connect: Connect, answers: int) -> None:
    """Under load, a SIGKILL leaves a prefix of whole and right answers, then the end of the channel."""
    pair = connect(children.echo, inbox_bytes=1 << 20, outbox_bytes=SMALL)
    values = [os.urandom(300) for _ in range(20)]
    for number in range(500):
        pair.channel.send_chunk(chunk(number, run(values)), None)
    events: list[Event] = list(pair.receive_answers(answers))
    pair.process.kill()
    events += pair.receive_until_closed()
    for number, event in enumerate(events):
        assert isinstance(event, Answered)
        assert event.chunk == number
        assert event.values == tuple(values)


@pytest.mark.parametrize(("chunks", "size"), [(0, 0), (20, 10_000), (2000, 1)])
def test_a_worker_ends_with_its_supervisor(connect: Connect, chunks: int, size: int) -> None:
    """Idle, waiting for room or on a full socket: the end of file ends a worker at once."""
    pair = connect(children.echo, outbox_bytes=SMALL)
    for number in range(chunks):
        pair.channel.send_chunk(chunk(number, run([bytes(size)])), None)
    assert pair.process.pid is not None
    wait_until_blocked(pair.process.pid)
    pair.channel.close()
    pair.process.join(20)
    assert pair.process.exitcode == 0


def test_a_worker_that_dies_waiting_for_room() -> None:
    """Nobody is left to be told about room; what the worker had said before is told all the same."""
    channel = Channel(WorkerId(1), ChannelOptions())
    for control in (Ready("before"), Ready("after")):
        channel.ends.socket.send(bytes([Kind.CONTROL]) + encode(control))
        channel.ends.socket.send(WANT_ROOM)
    channel.close_ends()
    assert channel.receive() == [WorkerReady(WorkerId(1), "before"), WorkerReady(WorkerId(1), "after")]
    with pytest.raises(ChannelClosedError):
        channel.receive()
    channel.close()


def test_room_that_finds_the_socket_full_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker waits for room while its socket is full of chunks: it gets it, though it answers nothing meanwhile."""
    channel = Channel(WorkerId(1), ChannelOptions(outbox_bytes=SMALL))
    end = WorkerEnd(channel.ends)
    for number in range(5):
        channel.send_chunk(chunk(number, run([b"v"])), None)
        end._receive_packet()
    for number in range(5, 5000):
        if channel._backlog:
            break
        channel.send_chunk(chunk(number, run([b"v"])), None)
    assert channel._backlog
    may_read = threading.Event()
    receive_packet = end._receive_packet

    def receive_later() -> None:
        may_read.wait()
        receive_packet()

    def answer() -> None:
        for received in list(end._stash)[:5]:
            assert isinstance(received, Work)
            end.answer(received.chunk, 0, [bytes(SMALL // 4)], None, {}, children.TIMING)

    monkeypatch.setattr(end, "_receive_packet", receive_later)
    worker = threading.Thread(target=answer, daemon=True)
    worker.start()
    deadline_s = time.monotonic() + 20
    while not end._wants_room:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    pair = Pair(channel, None)  # type: ignore[arg-type]
    assert len(pair.receive_answers(4)) == 4  # and the wish for room, whose answer does not fit into the socket
    may_read.set()
    assert len(pair.receive_answers(1)) == 1
    worker.join(20)
    assert not worker.is_alive()
    end.close()
    channel.close()


@pytest.mark.parametrize("is_noticed", [True, False])
def test_closing_lets_go_of_everything(*, is_noticed: bool) -> None:
    """Sockets, memory and packets that were never taken: nothing is left over, the death noticed or not."""
    before = open_descriptors()
    channel = Channel(WorkerId(1), ChannelOptions(inbox_bytes=SMALL))
    for number in range(400):
        channel.send_chunk(chunk(number, run([bytes(SMALL)])), None)
    assert channel._backlog
    channel.close_ends()
    if is_noticed:
        with pytest.raises(ChannelClosedError):
            channel.send(LoadModel("fraud"))
    channel.close()
    del channel
    assert open_descriptors() - before == set()


def test_a_worker_waits_as_long_as_it_is_told() -> None:
    """Nothing to do within the time is None, never early; what is there is taken at once; the end is EOFError."""
    channel = Channel(WorkerId(1), ChannelOptions())
    end = WorkerEnd(channel.ends)
    assert end.receive(0.0) is None
    assert end.receive(-1.0) is None
    started_s = time.monotonic()
    assert end.receive(0.0009) is None
    assert time.monotonic() - started_s >= 0.0009
    channel.send(LoadModel("fraud"))
    assert end.receive(0.0) == LoadModel("fraud")
    channel.close()
    with pytest.raises(EOFError):
        end.receive(None)
    with pytest.raises(EOFError):
        end.send(Ready("cpu"))
    end.close()


def test_the_supervisors_side_stays_light() -> None:
    """Neither torch nor numpy is imported by what the supervisor needs of the transport."""
    code = (
        "import sys, consumer.transport.channel, consumer.transport.spawn; print({'torch', 'numpy'} & {*sys.modules})"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "set()\n"
