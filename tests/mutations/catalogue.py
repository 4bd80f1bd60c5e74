"""The classic ways to lose or double records, each as an edit of the source that brings one of them back.

Owns the edits, and which tests are to notice each. Must not know how tests are run. An edit is stated by the text that
it replaces, which occurs once in its file: where the source moves on, `test_catalogue.py` fails until the edit follows.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One bug."""

    name: str
    bug: str
    """What the program does wrong, in a line."""
    promise: str
    """The promise that it breaks."""
    path: str
    """The file, from the repository's root."""
    before: str
    after: str
    tests: tuple[str, ...]
    """What pytest is given: the tests of which one has to fail."""
    needs_broker: bool = False

    def applied(self, source: str) -> str:
        """Return the file's text with the bug in it.

        Raises:
            ValueError: The text to replace is not there, or more than once.
        """
        found = source.count(self.before)
        if found != 1:
            raise ValueError(f"{self.name}: the text to replace is {found} times in {self.path}, not once")
        return source.replace(self.before, self.after)


SIMULATION = "tests/simulation"
PROTOCOLS = "tests/contract/test_protocols.py"
SOURCE = "tests/contract/test_source.py"
SINK = "tests/contract/test_sink.py"
TRANSACTIONS = "tests/contract/test_transactions.py"
TRANSACTION_MACHINE = "tests/kafka/test_transaction_machine.py"

MUTANTS = (
    # -- what is committed
    Mutant(
        name="highest-seen",
        bug="commits behind the highest offset seen, not behind the contiguous ones",
        promise="P1",
        path="consumer/core/ledger.py",
        before="        if not self._done:\n            return self._next\n        position, offset",
        after="        if not self._done or self._next:\n            return self._next\n        position, offset",
        tests=(SIMULATION,),
    ),
    Mutant(
        name="commit-before-delivery",
        bug="commits what was handed to the producer, not what the broker acknowledged",
        promise="P1",
        path="consumer/core/partitions.py",
        before="            ledger = self._resolved[partition]\n            next_offset = ledger.next_offset",
        after="            ledger = self._settled[partition]\n            next_offset = ledger.next_offset",
        tests=("tests/core/test_partitions.py", SIMULATION),
    ),
    Mutant(
        name="refused-commit",
        bug="takes a commit that the broker refused for made",
        promise="P5",
        path="consumer/core/committing.py",
        before="        if event.error is None:\n            self._partitions.committed(",
        after="        if event.offsets is not None:\n            self._partitions.committed(",
        tests=(SIMULATION, "tests/core/test_dispatcher.py"),
    ),
    Mutant(
        name="dead-letter-not-awaited",
        bug="resolves a dead letter when it is handed over, not when it is delivered",
        promise="P1",
        path="consumer/core/outcomes.py",
        before="        ticket = self._handover.hand([handed])\n        self._partitions.settle([handed])\n",
        after=(
            "        ticket = self._handover.hand([])\n        self._partitions.settle([handed])\n"
            "        self._partitions.resolve([handed])\n"
        ),
        tests=(SIMULATION,),
    ),
    Mutant(
        name="refused-result",
        bug="counts a result that the broker refused as delivered by the next barrier",
        promise="P1",
        path="consumer/core/handover.py",
        before="handed.runs if not handed.withdrawn else _remaining(handed)",
        after="handed.runs",
        tests=(SIMULATION,),
    ),
    Mutant(
        name="parked-outcome",
        bug="lets the barrier resolve an outcome that waits in the sink for its topic",
        promise="P1",
        path="consumer/core/outcomes.py",
        before="        found = self._handover.withdraw(ticket, index)\n        if found is not None:",
        after="        found = None\n        if found is not None:",
        tests=("tests/core/test_outcomes.py", SIMULATION),
    ),
    Mutant(
        name="completion-left-out",
        bug="produces a result whose completion the same commit cannot name: a successor produces it again",
        promise="P4",
        path="consumer/core/outcomes.py",
        before="        if self._must_fit and not all(map(self._partitions.fits, results.runs)):",
        after="        if not results.runs:",
        tests=("tests/core/test_outcomes.py",),
    ),
    # -- fences
    Mutant(
        name="late-answer",
        bug="lets the answer of an earlier assignment count in the present one",
        promise="P2",
        path="consumer/core/ledger.py",
        before="ledger is not None and ledger.generation == generation else None",
        after="ledger is not None else None",
        tests=(SIMULATION, "tests/core/test_dispatcher.py"),
    ),
    Mutant(
        name="commit-after-revoke",
        bug="lets late acknowledgements go on to move, and commit, a partition that was taken away",
        promise="P2",
        path="consumer/core/partitions.py",
        before="        self._resolved.close(partitions)\n        self._flow.revoke(partitions)\n"
        "        for partition in partitions:\n            self._committed.pop(partition, None)\n"
        "            self._topic_ids.pop(partition, None)\n",
        after="        self._flow.revoke(partitions)\n        for partition in partitions:\n",
        tests=("tests/core/test_partitions.py", SIMULATION),
    ),
    Mutant(
        name="commit-of-others",
        bug="commits offsets of partitions that another member owns: the broker would take them",
        promise="P2",
        path="consumer/kafka/commits.py",
        before="in offsets.items()\n            if each in self._assignment.owned\n",
        after="in offsets.items()\n",
        tests=(SOURCE,),
        needs_broker=True,
    ),
    Mutant(
        name="fetch-while-revoking",
        bug="takes and dispatches new records of a partition that is being taken away",
        promise="P2",
        path="consumer/core/dispatcher.py",
        before="if self.is_draining or fetched.partition in self._revoking:",
        after="if self.is_draining:",
        tests=("tests/core/test_dispatcher.py",),
    ),
    Mutant(
        name="answered-by-another",
        bug="takes an answer from a worker that does not have the chunk",
        promise="P2",
        path="consumer/core/leases.py",
        before="if lease is None or lease.worker != worker:",
        after="if lease is None:",
        tests=("tests/core/test_leases.py",),
    ),
    # -- what was fetched is not forgotten
    Mutant(
        name="batch-beside-a-callback",
        bug="goes on behind the batch that a raising callback destroyed in the client",
        promise="P3",
        path="consumer/kafka/source.py",
        before="        except BaseException:\n            self._seek_back()\n            raise\n",
        after="        except BaseException:\n            raise\n",
        tests=(SOURCE,),
        needs_broker=True,
    ),
    Mutant(
        name="batch-beside-a-hook",
        bug="drops the batch that was fetched while the revocation's hook raised",
        promise="P3",
        path="consumer/kafka/source.py",
        before="            raised, self._raised = self._raised, None\n            self._seek_back()\n",
        after="            raised, self._raised = self._raised, None\n",
        tests=(SOURCE,),
        needs_broker=True,
    ),
    Mutant(
        name="raising-signal-handler",
        bug="raises out of the handler of SIGTERM, which destroys the batch being fetched",
        promise="P3",
        path="consumer/supervisor/signals.py",
        before="        os.eventfd_write(self._wakeup, 1)\n",
        after="        os.eventfd_write(self._wakeup, 1)\n        raise RuntimeError\n",
        tests=("tests/supervisor/test_signals.py",),
    ),
    Mutant(
        name="unknown-position",
        bug="takes a committed offset that the coordinator did not tell for none, and starts anywhere",
        promise="P3",
        path="consumer/kafka/source.py",
        before="            if each.error is not None:\n                self._complaints.note(each.error, each.topic)",
        after="            if each is None:\n                pass",
        tests=("tests/kafka/test_source.py",),
    ),
    Mutant(
        name="crash-loses-the-batch",
        bug="forgets the records that a worker had when it died",
        promise="P4",
        path="consumer/core/dispatcher.py",
        before="            self._scheduler.suspect(runs)\n",
        after="",
        tests=(SIMULATION,),
    ),
    Mutant(
        name="drain-leaves-early",
        bug="ends a drain while outcomes are on their way or uncommitted",
        promise="P5",
        path="consumer/core/dispatcher.py",
        before="if self.is_draining and self.is_quiet(list(self._partitions)) and",
        after="if self.is_draining and",
        tests=(SIMULATION, "tests/core/test_dispatcher.py"),
    ),
    # -- the map of completed offsets
    Mutant(
        name="map-trusted-blindly",
        bug="believes a map that was written for another offset or for another topic of the name",
        promise="P1",
        path="consumer/core/offset_map.py",
        before="if (text_base, identity) != (base, crc32(topic_identity.encode())):",
        after="if (text_base, identity) is None:",
        tests=("tests/core/test_offset_map.py", "tests/core/test_partitions.py"),
    ),
    Mutant(
        name="map-of-an-unnamed-topic",
        bug="goes on without the topic's identity where no broker tells it: the map counts as another topic's",
        promise="P1",
        path="consumer/kafka/group.py",
        before="self.refused = Complaint(reason.name(), UNIDENTIFIED.format(described(reason)), topic)\n"
        "                return\n",
        after='self.topic_ids[topic] = ""\n',
        tests=("tests/kafka/test_source.py",),
    ),
    Mutant(
        name="map-without-checksum",
        bug="believes a damaged map",
        promise="P1",
        path="consumer/core/offset_map.py",
        before=" or text[-_CHECK.size :] != _CHECK.pack(crc32(text[: -_CHECK.size])):",
        after=":",
        tests=("tests/core/test_offset_map.py",),
    ),
    Mutant(
        name="map-of-a-topic-cut-short",
        bug="believes the map though the broker begins below the offset that it counts from",
        promise="P1",
        path="consumer/core/ledger.py",
        before="        if first == 0 and self._segments[0][1] < start:",
        after="        if first < 0:",
        tests=("tests/core/test_ledger.py",),
    ),
    Mutant(
        name="map-not-written",
        bug="forgets what is completed beyond the watermark when it commits",
        promise="P5",
        path="consumer/core/partitions.py",
        before="completed = ledger.completed(offset_map.SPAN_MAX)",
        after='completed = b""',
        tests=("tests/core/test_partitions.py", SIMULATION),
    ),
    # -- the barrier
    Mutant(
        name="barrier-tells-too-much",
        bug="tells hand-overs as delivered that still wait for the barrier before them",
        promise="P1",
        path="consumer/kafka/sink.py",
        before="Ticket(self._waiting[0].ticket - 1) if self._waiting else self._handed",
        after="self._handed",
        tests=(SINK,),
        needs_broker=True,
    ),
    Mutant(
        name="barrier-forgets-suspects",
        bug="passes the barrier while records are sent again one by one",
        promise="P1",
        path="consumer/kafka/sink.py",
        before="return not (len(self._main) or self._again or self._suspects or self._suspected)",
        after="return not len(self._main)",
        tests=(SINK,),
        needs_broker=True,
    ),
    Mutant(
        name="neighbours-condemned",
        bug="makes a dead letter of every record whose batch the broker refused for one of them",
        promise="P7",
        path="consumer/kafka/handovers.py",
        before="            self.reporter.suspect(self, index)\n\n    def condemn(self, index: int",
        after='            self.condemn(index, "too-large", "", "")\n\n    def condemn(self, index: int',
        tests=(SINK,),
        needs_broker=True,
    ),
    # -- transactions
    Mutant(
        name="offsets-outside",
        bug="commits results in a transaction that does not hold the offsets they stand for",
        promise="P4",
        path="consumer/kafka/operations.py",
        before="                operation.repeat(send, until_s)\n",
        after="",
        tests=(f"{TRANSACTIONS}::test_results_and_offsets_appear_together",),
        needs_broker=True,
    ),
    Mutant(
        name="results-outside",
        bug="puts results that came after the barrier into a transaction whose offsets do not name them",
        promise="P4",
        path="consumer/kafka/transactions.py",
        before="while self._waiting and (not self._is_sealed or self._waiting[0].ticket <= (self._barrier or 0)):",
        after="while self._waiting:",
        tests=(f"{TRANSACTIONS}::test_what_comes_after_the_barrier_waits_for_the_next_transaction",),
        needs_broker=True,
    ),
    Mutant(
        name="wait-begins-a-barrier",
        bug="adds results to a sealed transaction whose barrier has passed, so that its commit does not name them",
        promise="P4",
        path="consumer/kafka/outlet.py",
        before="        deadline_s = time.monotonic() + timeout_s\n",
        after="        deadline_s, self._barrier = time.monotonic() + timeout_s, self._barrier or self._handed\n",
        tests=(f"{TRANSACTIONS}::test_waiting_for_a_barrier_begins_none",),
        needs_broker=True,
    ),
    Mutant(
        name="abort-forgets",
        bug="does not produce again what an aborted transaction held",
        promise="P4",
        path="consumer/kafka/contents.py",
        before="        self._unsent.append(handed)\n        self._suspects.extend(",
        after="        self._suspects.extend(",
        tests=(f"{TRANSACTIONS}::test_metadata_of_an_old_generation_is_refused_and_nothing_inferred_again",),
        needs_broker=True,
    ),
    Mutant(
        name="commits-what-was-revoked",
        bug="commits a transaction that holds results of partitions that were taken away",
        promise="P2",
        path="consumer/kafka/transactions.py",
        before="        if is_in_it and (self._operation is None or self._operation.attempt is None):",
        after="        if not self._contents.retained:",
        tests=(f"{TRANSACTIONS}::test_fenced_partitions_leave_the_transaction",),
        needs_broker=True,
    ),
    Mutant(
        name="not-a-member",
        bug="commits with the metadata of a group that it has not joined, which the broker does not check",
        promise="P2",
        path="consumer/kafka/group.py",
        before='return generation >= 0 and member not in ([], [b""])',
        after="return generation is not None",
        tests=("tests/kafka/test_group.py",),
    ),
    # -- bad records and bad models
    Mutant(
        name="killer-never-condemned",
        bug="gives a record that kills its worker to the next one, for ever",
        promise="P6",
        path="consumer/core/recovery.py",
        before="run.crashes += 1 if was_alone else 0",
        after="run.crashes += 0",
        tests=(SIMULATION,),
    ),
    Mutant(
        name="poison-takes-its-batch",
        bug="fails a whole batch for one record in it",
        promise="P7",
        path="consumer/worker/runner.py",
        before="            return self._attempt_halves(call, rows_max, report)\n"
        "        return self._give_up(call, failure)\n",
        after="            for one in (portion.part(i, i + 1) for portion in call for i in range(portion.records)):\n"
        "                self._give_up([one], failure)\n"
        "            return False\n"
        "        return self._give_up(call, failure)\n",
        tests=("tests/worker/test_runner.py",),
    ),
    Mutant(
        name="charges-the-bystander",
        bug="charges a crash to every model that the worker was at, not to the one whose it was",
        promise="P7",
        path="consumer/core/recovery.py",
        before=" and len({lease.chunk.model for lease in named}) == 1",
        after="",
        tests=("tests/core/test_leases.py",),
    ),
    Mutant(
        name="suspect-in-company",
        bug="begins another batch while one runs whose record may end the worker",
        promise="P7",
        path="consumer/worker/caller.py",
        before=" and not any(job.is_suspect for job in self._under_way)",
        after="",
        tests=("tests/worker/test_caller.py",),
    ),
    Mutant(
        name="payload-overwritten",
        bug="reuses a chunk's memory before the worker has answered all of it",
        promise="P4",
        path="consumer/transport/channel.py",
        before="if not sent.is_released or 1 in sent.unanswered:",
        after="if not sent.is_released:",
        tests=("tests/transport/test_channel.py",),
    ),
    # -- flow
    Mutant(
        name="paused-for-ever",
        bug="never resumes a partition that was paused",
        promise="P6",
        path="consumer/core/dispatcher.py",
        before="            self._actions.append(do.Resume(decision.resume))\n",
        after="            pass\n",
        tests=(SIMULATION,),
    ),
    Mutant(
        name="no-budget",
        bug="fetches without regard to what is in flight",
        promise="P6",
        path="consumer/core/flow.py",
        before="        return max(1, int(min(options.fetch_records_max, by_records, by_size)))",
        after="        return options.fetch_records_max",
        tests=("tests/core/test_flow.py", SIMULATION),
    ),
    Mutant(
        name="flood-first",
        bug="fetches a flood for a slow model bit by bit, with all others behind it in the client's queue",
        promise="P6",
        path="consumer/core/flow.py",
        before="        return (wide, short, []) if is_any_light and is_slow else (wide, [], short)\n",
        after="        return wide, [], short\n",
        tests=("tests/core/test_flow.py",),
    ),
    Mutant(
        name="no-turns",
        bug="runs all that lies with a worker for one model before anything of another one",
        promise="P6",
        path="consumer/core/batching.py",
        before="            since_s = max(oldest_s, over_s)\n",
        after="            since_s = oldest_s\n",
        tests=("tests/core/test_batching.py",),
    ),
    Mutant(
        name="never-started",
        bug="only seeks where the client never began to fetch a partition",
        promise="P6",
        path="consumer/kafka/fetchers.py",
        before="        client.incremental_assign(standing([partition]))\n",
        after="        client.seek(standing([partition])[0])\n",
        tests=(f"{SOURCE}::test_a_partition_that_never_starts_is_noticed_soon",),
        needs_broker=True,
    ),
    Mutant(
        name="resumed-asleep",
        bug="resumes partitions and lets the client notice when it will",
        promise="P6",
        path="consumer/kafka/source.py",
        before="for each in self._assignment.next.keys() & chosen:",
        after="for each in self._assignment.next.keys() & ():",
        tests=(f"{SOURCE}::test_a_resumed_partition_is_fetched_at_once",),
        needs_broker=True,
    ),
    Mutant(
        name="deaf-to-throttles",
        bug="passes the barrier of a transaction while a quota holds its commit back",
        promise="P6",
        path="consumer/kafka/transactions.py",
        before="time.monotonic() + event.throttle_time)",
        after="time.monotonic())",
        tests=(f"{TRANSACTIONS}::test_a_broker_that_throttles_is_waited_for_before_the_barrier",),
        needs_broker=True,
    ),
    Mutant(
        name="blind-to-forgetting",
        bug="keeps a client that has forgotten all brokers",
        promise="P6",
        path="consumer/kafka/source.py",
        before="        if self._contact.is_lost:\n            self._connect_anew()\n",
        after="",
        tests=(f"{SOURCE}::test_a_client_that_forgot_all_brokers_is_made_anew",),
        needs_broker=True,
    ),
    Mutant(
        name="heard-too-late",
        bug="closes the client while changes of its assignment wait to be heard",
        promise="P6",
        path="consumer/kafka/group.py",
        before="        while client.consume(DROPPED_MAX, 0):\n            pass\n",
        after="",
        tests=(f"{PROTOCOLS}::test_a_client_closes_with_nothing_unheard",),
        needs_broker=True,
    ),
    Mutant(
        name="out-of-turn",
        bug="puts outcomes that were tried apart into a transaction whose barrier does not tell of them",
        promise="P2",
        path="consumer/kafka/transactions.py",
        before="if handed.ticket > self._delivered:  # in its turn, and as the ration allows",
        after="if handed.ticket < 0:",
        tests=(f"{TRANSACTIONS}::test_what_was_tried_apart_keeps_to_the_ration",),
        needs_broker=True,
    ),
    Mutant(
        name="stuck-for-ever",
        bug="waits for a transaction that cannot end, and every model with it",
        promise="P6",
        path="consumer/kafka/succession.py",
        before="            if is_stuck(error) and (stand_in := self._stand_in(operation.repeat",
        after="            if not error and (stand_in := self._stand_in(operation.repeat",
        tests=("tests/kafka/test_succession.py::test_a_spare_goes_on_for_one_that_is_stuck",),
    ),
    Mutant(
        name="goes-on-undecided",
        bug="goes on under another id before the coordinator was asked to end the old transaction",
        promise="P4",
        path="consumer/kafka/succession.py",
        before="            if is_stuck(error) and (stand_in := self._stand_in(operation.repeat",
        after="            if (stand_in := self._stand_in(operation.repeat",
        tests=("tests/kafka/test_succession.py::test_the_same_id_goes_on_where_it_may",),
    ),
    Mutant(
        name="stuck-for-another",
        bug="parks a topic whose trial met a transaction that another topic had left without an end",
        promise="P7",
        path="consumer/kafka/trials.py",
        before="if error is not None and is_stuck(error) and not suspended.has_used_spare:",
        after="if error is not None and is_stuck(error) and suspended.has_used_spare:",
        tests=("tests/kafka/test_trials.py",),
    ),
    Mutant(
        name="killed-is-guilty",
        bug="holds a kill from outside against the model that the worker was loading",
        promise="P7",
        path="consumer/core/placement.py",
        before="if not was_outside or state.breaker.is_open",
        after="if was_outside or not was_outside or state.breaker.is_open",
        tests=("tests/core/test_placement.py",),
    ),
    Mutant(
        name="room-asked-once",
        bug="waits for room though the reply found the socket full",
        promise="P6",
        path="consumer/transport/worker_end.py",
        before="            self._wants_room = self._wants_room and self._is_readable(0.0)\n",
        after="",
        tests=("tests/transport/test_channel.py::test_room_that_finds_the_socket_full_is_asked_for_again",),
    ),
    Mutant(
        name="doubts-every-commit",
        bug="produces again what was committed, where the client broke before it heard so",
        promise="P4",
        path="consumer/kafka/succession.py",
        before="is_committed = any(found.get(each) == commit for each, commit in attempt.offsets.items())",
        after="is_committed = not found and not attempt.offsets",
        tests=(TRANSACTION_MACHINE,),
    ),
    Mutant(
        name="trusts-every-commit",
        bug="takes a commit for confirmed, where the client broke before it heard so",
        promise="P1",
        path="consumer/kafka/succession.py",
        before="is_committed = any(found.get(each) == commit for each, commit in attempt.offsets.items())",
        after="is_committed = bool(found) or True",
        tests=(TRANSACTION_MACHINE,),
    ),
)
"""Every bug that the gate brings back."""
