"""Planning workers over devices, cores and threads, and taking one's place."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import ConfigError
from consumer.worker import hardware
from consumer.worker.device import (
    AUTO_WORKERS_MAX,
    WORKER_BYTES,
    WorkerOptions,
    WorkerSlot,
    environment,
    needs_gpu_count,
    plan,
    summary,
    visible,
)
from consumer.worker.hardware import Facts

GIB = 2**30


def facts(cores: int = 8, **values: object) -> Facts:
    """Describe a machine of that many cores."""
    return Facts(cores=tuple(range(cores)), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cores", "groups", "expected"),
    [
        (2, [WorkerOptions(threads=1)], [False]),
        (3, [WorkerOptions(threads=1)], [True]),
        (4, [WorkerOptions(count=2)], [False, False]),
        (5, [WorkerOptions(count=2)], [True, True]),
        (8, [WorkerOptions(count=8)], [False] * 8),
        (8, [WorkerOptions(cores=(0,)), WorkerOptions()], [False, True]),
    ],
)
def test_a_worker_overlaps_where_the_supervisor_has_a_core_too(
    cores: int, groups: list[WorkerOptions], expected: list[bool]
) -> None:
    """A worker decodes while it computes only where it has two cores and one more is left for the supervisor."""
    assert [slot.has_spare_core for slot in plan(tuple(groups), facts(cores))] == expected


def test_a_quota_counts_as_cores() -> None:
    """Where the process may use the time of two cores, no worker's second thread finds a third."""
    assert [slot.has_spare_core for slot in plan((WorkerOptions(),), facts(16, quota=2.0))] == [False]
    assert [slot.has_spare_core for slot in plan((WorkerOptions(),), facts(16, quota=3.0))] == [True]


class TestAuto:
    """`workers: auto`."""

    def test_one_worker_per_visible_gpu(self) -> None:
        """With GPUs there is one worker for each, and the cores are divided among them."""
        slots = plan("auto", facts(8, gpus=2))
        assert [(slot.device, slot.visible_devices) for slot in slots] == [("cuda:0", "0"), ("cuda:1", "1")]
        assert [slot.cores for slot in slots] == [(0, 1, 2, 3), (4, 5, 6, 7)]
        assert [slot.threads for slot in slots] == [4, 4]

    def test_one_worker_per_core_with_one_thread_without_gpus(self) -> None:
        """Without GPUs each core has a worker of its own."""
        slots = plan("auto", facts(4, gpus=0))
        assert [(slot.device, slot.visible_devices, slot.cores, slot.threads) for slot in slots] == [
            ("cpu", "", (core,), 1) for core in range(4)
        ]

    def test_at_most_eight_workers_share_all_cores(self) -> None:
        """More cores than eight make no more workers, but each has several to move on."""
        slots = plan("auto", facts(20, gpus=0))
        assert len(slots) == AUTO_WORKERS_MAX
        assert sorted(core for slot in slots for core in slot.cores) == list(range(20))
        assert {slot.threads for slot in slots} == {1}

    def test_no_more_workers_than_fit_half_the_memory(self) -> None:
        """Memory counts before cores."""
        assert len(plan("auto", facts(8, gpus=0, memory_bytes=6 * WORKER_BYTES))) == 3

    def test_one_worker_even_where_memory_is_short(self) -> None:
        """There is always one."""
        assert len(plan("auto", facts(8, gpus=0, memory_bytes=1))) == 1

    @pytest.mark.parametrize(("quota", "count"), [(3.5, 3), (0.5, 1), (100.0, 8)])
    def test_a_quota_counts_in_whole_cores(self, quota: float, count: int) -> None:
        """Cores are the affinity mask, as far as the cgroup's quota goes."""
        assert len(plan("auto", facts(8, gpus=0, quota=quota))) == count

    def test_under_a_quota_nothing_is_pinned(self) -> None:
        """A quota is time and not cores: all containers would pile up on the same first ones."""
        assert {slot.cores for slot in plan("auto", facts(8, gpus=0, quota=2.0))} == {()}


class TestListed:
    """`workers:` as a list of groups."""

    def test_cores_are_divided_among_groups_without_their_own(self) -> None:
        """Named cores stay in their group, the others are shared evenly."""
        groups = (WorkerOptions(cores=(6, 7)), WorkerOptions(count=3))
        slots = plan(groups, facts(8))
        assert [slot.cores for slot in slots] == [(6, 7), (0, 1), (2, 3), (4, 5)]
        assert [slot.threads for slot in slots] == [2, 2, 2, 2]
        assert [slot.index for slot in slots] == [0, 1, 2, 3]

    def test_named_cores_are_divided_among_their_groups_workers(self) -> None:
        """`cores` is the whole group's."""
        slots = plan((WorkerOptions(count=2, cores=(3, 1, 0, 2)),), facts(8))
        assert [slot.cores for slot in slots] == [(0, 1), (2, 3)]

    def test_more_workers_than_cores_take_turns(self) -> None:
        """Each is pinned to one core and has one thread."""
        slots = plan((WorkerOptions(count=5),), facts(2))
        assert [slot.cores for slot in slots] == [(0,), (1,), (0,), (1,), (0,)]
        assert {slot.threads for slot in slots} == {1}

    def test_threads_are_what_is_told(self) -> None:
        """A worker may have fewer threads than cores."""
        assert plan((WorkerOptions(threads=3),), facts(8))[0].threads == 3

    @pytest.mark.parametrize(
        ("group", "quota", "most"),
        [
            (WorkerOptions(threads=3), None, 2),
            (WorkerOptions(threads=2, count=2), None, 1),
            (WorkerOptions(threads=2, cores=(1,)), None, 1),
            (WorkerOptions(threads=2), 1.5, 1),
        ],
    )
    def test_more_threads_than_cores_are_refused(self, group: WorkerOptions, quota: float | None, most: int) -> None:
        """They would only wait for each other, whether the cores are few by number, by name or by quota."""
        with pytest.raises(ConfigError, match=rf"workers\[0\].threads: {group.threads} is more .*; at most {most}$"):
            plan((group,), facts(2, quota=quota))

    def test_threads_stay_within_a_quota(self) -> None:
        """The quota's cores are divided among all workers."""
        assert [slot.threads for slot in plan((WorkerOptions(count=2),), facts(64, quota=9.0))] == [4, 4]

    def test_workers_may_share_a_gpu(self) -> None:
        """`count` workers of one device all see it."""
        slots = plan((WorkerOptions(device="cuda:1", count=2),), facts(4, gpus=2))
        assert [(slot.device, slot.visible_devices) for slot in slots] == [("cuda:1", "1")] * 2

    def test_cpu_workers_see_no_gpu(self) -> None:
        """A worker on the CPU has an empty CUDA_VISIBLE_DEVICES."""
        (slot,) = plan((WorkerOptions(),), facts(4, gpus=2))
        assert environment(slot)["CUDA_VISIBLE_DEVICES"] == ""

    def test_all_faults_are_told_at_once(self) -> None:
        """Each line names the key, the value and what is allowed."""
        groups = (
            WorkerOptions(device="cuda:2"),
            WorkerOptions(device="gpu"),
            WorkerOptions(device="cuda:x"),
            WorkerOptions(cores=(1, 9)),
            WorkerOptions(cores=()),
        )
        with pytest.raises(ConfigError) as caught:
            plan(groups, facts(2, gpus=2))
        assert caught.value.problems == (
            "workers[0].device: cuda:2 is not visible; visible: cuda:0 to cuda:1",
            "workers[1].device: 'gpu' is neither cpu nor cuda:N",
            "workers[2].device: 'cuda:x' is neither cpu nor cuda:N",
            "workers[3].cores: [9]: this process may use the cores 0, 1",
            "workers[4].cores: none: this process may use the cores 0, 1",
        )

    def test_a_gpu_where_there_is_none_is_refused(self) -> None:
        """It says that there is none."""
        with pytest.raises(ConfigError, match="cuda:0 is not visible; visible: no GPU"):
            plan((WorkerOptions(device="cuda:0"),), facts(2, gpus=0))

    def test_an_empty_list_is_refused(self) -> None:
        """Nothing would ever be inferred."""
        with pytest.raises(ConfigError, match="workers: is empty"):
            plan((), facts(2))

    @given(
        st.lists(st.integers(1, 4), min_size=1, max_size=4),
        st.integers(1, 12),
        st.none() | st.floats(0.1, 16, allow_nan=False),
    )
    def test_never_more_threads_than_cores_unless_there_are_more_workers(
        self, counts: list[int], cores: int, quota: float | None
    ) -> None:
        """What is left to the plan stays within the machine, and every worker has at least one thread."""
        slots = plan(tuple(WorkerOptions(count=count) for count in counts), facts(cores, quota=quota))
        usable = max(1, min(cores, int(quota))) if quota is not None else cores
        assert sum(slot.threads for slot in slots) <= max(usable, len(slots))
        assert min(slot.threads for slot in slots) >= 1
        assert len(slots) == sum(counts)


@pytest.mark.parametrize(
    ("inherited", "counted", "names"),
    [
        (None, 2, ("0", "1")),
        (None, 0, ()),
        ("", 0, ()),
        ("-1", 0, ()),
        ("3", 1, ("3",)),
        ("2, 0", 2, ("2", "0")),
        ("0,1,-1,2", 2, ("0", "1")),
        ("GPU-8f5e,GPU-11aa", 2, ("GPU-8f5e", "GPU-11aa")),
        ("MIG-aa,MIG-bb", 1, ("MIG-aa", "MIG-bb")),
        ("MIG-GPU-8f5e/1/0", 1, ("MIG-GPU-8f5e/1/0",)),
        ("MIG-aa", 0, ()),
    ],
)
def test_devices_are_those_that_the_inherited_list_lets_through(
    inherited: str | None, counted: int, names: tuple[str, ...]
) -> None:
    """`cuda:N` indexes the inherited list: indices, UUIDs, MIG instances (of which a process sees one)."""
    assert visible(facts(1, gpus=counted, visible_devices=inherited)) == names


def test_a_worker_sees_its_device_by_the_inherited_name() -> None:
    """The N-th of the inherited list is handed down, and is cuda:0 inside."""
    groups = (WorkerOptions(device="cuda:1"),)
    (slot,) = plan(groups, facts(4, gpus=2, visible_devices="GPU-8f5e,GPU-11aa"))
    assert environment(slot)["CUDA_VISIBLE_DEVICES"] == "GPU-11aa"
    assert slot.torch_device == "cuda:0"


@pytest.mark.parametrize(
    ("workers", "needed"),
    [("auto", True), ((WorkerOptions(),), False), ((WorkerOptions(), WorkerOptions(device="cuda:0")), True)],
)
def test_gpus_are_counted_only_where_the_plan_needs_it(workers: object, needed: bool) -> None:
    """Counting takes a child process."""
    assert needs_gpu_count(workers) is needed  # type: ignore[arg-type]


def test_the_summary_adds_up() -> None:
    """One line tells workers by device, threads, cores and memory."""
    machine = facts(8, quota=2.0, memory_bytes=4 * GIB)
    slots = plan((WorkerOptions(count=2),), machine)
    assert summary(slots, machine) == (
        "2 workers (2 on cpu), 2 threads on 2 cores (2 of 8 by cgroup quota, not pinned), "
        "1.0 GiB of 4.0 GiB before any model"
    )


CHILD = """
import json, os, sys
from consumer.worker.device import WorkerSlot, pin
assert "torch" not in sys.modules
pin(WorkerSlot(index=0, device="cpu", cores=(int(sys.argv[1]),), threads=1))
import torch
print(json.dumps([sorted(os.sched_getaffinity(0)), torch.get_num_threads(), torch.get_num_interop_threads()]))
"""


def test_a_child_is_pinned_before_torch_is_imported() -> None:
    """Cores, intra-op and inter-op threads are the slot's; planning itself never imports torch."""
    core = max(os.sched_getaffinity(0))
    variables = {**os.environ, **environment(WorkerSlot(index=0, device="cpu"))}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(core)], env=variables, capture_output=True, text=True, check=True
    )
    assert json.loads(child.stdout) == [[core], 1, 1]


def test_the_environment_sets_threads_and_forbids_pickles() -> None:
    """All of it is set before the child starts."""
    slot = WorkerSlot(index=0, device="cpu", threads=3)
    variables = environment(slot)
    assert {name: value for name, value in variables.items() if not name.startswith("MALLOC_")} == {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    }


def files(root: Path, contents: dict[str, str]) -> Path:
    """Write files below a directory."""
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


class TestFacts:
    """Reading what the machine and the container grant."""

    @pytest.mark.parametrize(
        ("contents", "quota"),
        [
            ({}, None),
            ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
            ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
            (
                {
                    "proc/self/cgroup": "0::/a/b\n",
                    "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                    "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
                    "sys/fs/cgroup/cpu.max": "400000 100000\n",
                },
                2.0,
            ),
            ({"proc/self/cgroup": "0::/the/hosts\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3.0),
            (
                {
                    "proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/c\n0::/\n",
                    "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "250000\n",
                    "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000\n",
                    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                },
                2.5,
            ),
        ],
        ids=["no cgroup", "no quota", "quota", "quota of an outer group", "path of the host", "version 1"],
    )
    def test_the_tightest_quota_counts(self, tmp_path: Path, contents: dict[str, str], quota: float | None) -> None:
        """Both versions of cgroups are read, the group's own limit and those around it."""
        assert hardware.cpu_quota(files(tmp_path, contents)) == quota

    @pytest.mark.parametrize(
        ("contents", "limit"),
        [
            ({}, None),
            ({"proc/meminfo": "MemTotal:       2048 kB\nMemFree: 1 kB\n"}, 2048 * 1024),
            (
                {
                    "proc/meminfo": "MemTotal:       2048 kB\n",
                    "proc/self/cgroup": "0::/a\n",
                    "sys/fs/cgroup/a/memory.max": "max\n",
                    "sys/fs/cgroup/memory.max": "1000\n",
                },
                1000,
            ),
            (
                {
                    "proc/meminfo": "MemTotal:       2048 kB\n",
                    "proc/self/cgroup": "4:memory:/m\n",
                    "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "9223372036854771712\n",
                },
                2048 * 1024,
            ),
        ],
        ids=["nothing", "machine", "version 2", "version 1 without a limit"],
    )
    def test_the_tightest_memory_limit_counts(
        self, tmp_path: Path, contents: dict[str, str], limit: int | None
    ) -> None:
        """The machine's memory bounds a limit that is no limit."""
        assert hardware.memory_limit(files(tmp_path, contents)) == limit

    def test_the_real_machine_can_be_read(self) -> None:
        """What this test may run on is what it reads."""
        read = hardware.gather(with_gpus=False)
        assert set(read.cores) == os.sched_getaffinity(0)
        assert read.memory_bytes is not None
        assert read.memory_bytes > 0
        assert read.gpus is None

    def test_gpus_are_counted_in_a_child(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The child sees the same CUDA_VISIBLE_DEVICES: with none let through it counts none."""
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert hardware.count_gpus() == 0

    def test_a_child_that_cannot_count_is_reported(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Its last line is in the error, and what to do instead."""
        failing = tmp_path / "python"
        failing.write_text("#!/bin/sh\necho 'a line' >&2\necho 'RuntimeError: broken driver' >&2\nexit 1\n")
        failing.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(failing))
        with pytest.raises(ConfigError, match=r"GPUs failed \(RuntimeError: broken driver\); list workers"):
            hardware.count_gpus()

    def test_a_child_that_hangs_is_given_up(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A driver that does not answer must not stop the start for ever."""
        hanging = tmp_path / "python"
        hanging.write_text("#!/bin/sh\nexec sleep 600\n")
        hanging.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(hanging))
        with pytest.raises(ConfigError, match=r"took longer than 0\.2 s"):
            hardware.count_gpus(timeout_s=0.2)
