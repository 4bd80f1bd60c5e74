"""Exported programs that bring code of their own."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from consumer.errors import ModelError
from consumer.models import archive
from consumer.worker.device import WorkerSlot, environment
from tests.worker.networks import BATCH, Classifier, Embedder, export

EVIL = "__import__('os').system('touch size-ran')"


class Opened:
    """Runs a command when it is unpickled.

    Args:
        trace: The file that the command leaves.
    """

    def __init__(self, trace: str) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        """Name what unpickling calls."""
        return os.system, (f"touch {self._trace}",)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export a program."""
    file = tmp_path_factory.mktemp("programs") / "honest.pt2"
    export(file, Classifier().eval(), torch.zeros(2, 4), dynamic={"x": BATCH})
    return file


def rewritten(honest: Path, change: Callable[[str, bytes], bytes], extra: dict[str, bytes] | None = None) -> Path:
    """Write the archive anew with changed members, and others beside them."""
    file = honest.with_name(f"changed-{len(list(honest.parent.iterdir()))}.pt2")
    with zipfile.ZipFile(honest) as old, zipfile.ZipFile(file, "w") as new:
        top = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, content in (extra or {}).items():
            new.writestr(f"{top}/{name}", content)
    return file


def in_program(old: str, new: str) -> Callable[[str, bytes], bytes]:
    """Replace a piece of the program's JSON."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        text = json.dumps(json.loads(content))
        assert old in text, "the test replaces what is there"
        return text.replace(old, new).encode()

    return change


def unchanged(_: str, content: bytes) -> bytes:
    """Leave a member as it is."""
    return content


def refusal(file: Path) -> str:
    """Check an archive that must be refused, and return why."""
    with zipfile.ZipFile(file) as opened, pytest.raises(ModelError) as caught:
        archive.check(opened)
    return str(caught.value)


LOAD = """
import sys, torch
for file in sys.argv[1:]:
    try:
        torch.export.load(file).module()(torch.zeros(2, 4))
        print("answered")
    except Exception as error:
        print(type(error).__name__)
"""


@dataclass(frozen=True)
class Planted:
    """Programs with planted code, loaded by torch alone in a process with a worker's environment."""

    constant: Path
    """Has a pickled constant."""
    size: Path
    """Has code for a symbolic size."""
    outcomes: list[str]
    """How loading ended: of the honest program, of one with a pickle among its sample inputs, of these two."""
    traces: set[str]
    """What the planted code left behind."""


@pytest.fixture(scope="module")
def planted(honest: Path) -> Planted:
    """Plant code and have torch load it."""
    sample = io.BytesIO()
    torch.save(Opened("sample-ran"), sample)
    samples = rewritten(honest, lambda name, old: sample.getvalue() if name.endswith("sample_inputs/model.pt") else old)
    opaque = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    config = json.dumps({"config": {"c": opaque}}).encode()
    constant = rewritten(
        honest,
        lambda name, old: config if name.endswith("model_constants_config.json") else old,
        {"data/constants/opaque_obj_0": pickle.dumps(Opened("constant-ran"))},
    )
    with zipfile.ZipFile(honest) as opened:
        program = json.loads(opened.read("honest/models/model.json"))
    symbol = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"]
    size = rewritten(honest, in_program(symbol, f"{EVIL} or 2"))
    child = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, (honest, samples, constant, size))],
        cwd=honest.parent,
        env={**os.environ, **environment(WorkerSlot(index=0, device="cpu"))},
        capture_output=True,
        text=True,
        check=True,
    )
    traces = {path.name for path in honest.parent.glob("*-ran")}
    return Planted(constant, size, child.stdout.splitlines(), traces)


def test_a_pickle_planted_among_the_sample_inputs_does_not_run(planted: Planted) -> None:
    """The workers' environment keeps torch from unpickling it, and honest files still load."""
    assert planted.outcomes[:2] == ["answered", "UnpicklingError"]
    assert "sample-ran" not in planted.traces


def test_a_pickled_constant_is_refused_because_torch_would_run_it(planted: Planted) -> None:
    """The environment does not stop this one: torch unpickles opaque constants whatever it says."""
    assert "constant-ran" in planted.traces, "torch is safe against this now: the check may go"
    assert "it holds a pickled object (honest/data/constants/opaque_obj_0)" in refusal(planted.constant)


def test_code_in_a_symbolic_size_is_refused_because_torch_would_run_it(planted: Planted) -> None:
    """Sizes are evaluated as Python."""
    assert "size-ran" in planted.traces, "torch is safe against this now: the check may go"
    assert "holds the expr_str" in refusal(planted.size)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("torch.ops.aten.linear.default", "torch.os.system"),
        ("torch.ops.aten.linear.default", "torch.ops.load_library.__call__"),
        ("torch.ops.aten.linear.default", "_operator.methodcaller"),
        ("torch.ops.aten.linear.default", "os.system"),
        ('"name": "x"', f'"name": "x={EVIL}"'),
        ('"forward_arg_names": ["x"]', f'"forward_arg_names": ["x={EVIL}"]'),
        ('"guards_code": []', f'"guards_code": ["{EVIL}"]'),
        ('"guards_code": []', '"guards_code": ["exec(x)"]'),
        ('"guards_code": []', '"guards_code": ["L.f_globals"]'),
        ('"guards_code": []', '"guards_code": ["[x for x in (1,)]"]'),
        ('"guards_code": []', '"guards_code": ["1 +"]'),
        (r"\"context\": \"[]\"", r"\"context\": \"[\\\"a':1\\\"]\""),
        (r"\"context\": \"null\"", r"\"context\": \"{\\\"__enum__\\\": true}\""),
    ],
)
def test_other_ways_to_plant_code_are_refused(honest: Path, old: str, new: str) -> None:
    """Operators, names, guards and call specifications hold what an export writes, and nothing else."""
    assert "which no export writes" in refusal(rewritten(honest, in_program(old, new)))


def test_a_second_program_in_the_archive_is_looked_at_too(honest: Path) -> None:
    """Torch loads every program that an archive holds."""
    file = rewritten(honest, unchanged, {"models/other.json": b'{"target": "os.system"}'})
    assert "other.json in it holds the target 'os.system'" in refusal(file)


def test_an_archive_that_can_be_read_in_two_ways_is_refused(honest: Path) -> None:
    """Two members of one name, whatever their case: which one is read depends on the reader."""
    file = rewritten(honest, unchanged, {"MODELS/model.json": b"{}"})
    assert "a name occurs twice" in refusal(file)


def test_a_damaged_program_is_refused(honest: Path) -> None:
    """Its JSON must be JSON."""
    file = rewritten(honest, lambda name, content: b"{" if name.endswith("models/model.json") else content)
    assert "model.json in it is damaged" in refusal(file)


class Branching(nn.Module):
    """Control flow and sizes that follow from the input."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute this and that."""
        chosen = torch.cond(x.sum() > 0, lambda z: z + 1, lambda z: z - 1, (x,))
        count = x.shape[0] // 2 * 3 + y.shape[0]
        return chosen, torch.arange(count), torch.cat([x, y]), x.nonzero(), torch.vmap(torch.sin)(x)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own, under vmap
def test_honest_programs_pass(tmp_path: Path) -> None:
    """Control flow, derived sizes, vmap, keyword arguments, decompositions: whatever torch writes itself is taken."""
    dynamic = torch.export.Dim.AUTO
    branching = (torch.zeros(4, 4), torch.zeros(8, 4)), {"x": {0: dynamic}, "y": {0: dynamic}}
    programs = {
        "branching": torch.export.export(Branching(), branching[0], dynamic_shapes=branching[1]),
        "strict": torch.export.export(Branching(), branching[0], dynamic_shapes=branching[1], strict=True),
        "keywords": torch.export.export(
            Embedder(), (torch.zeros(2, 5, dtype=torch.int64),), {"mask": torch.ones(2, 5)}
        ),
        "encoder": torch.export.export(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(),
            (torch.zeros(2, 5, 8),),
            dynamic_shapes={"src": {0: dynamic, 1: dynamic}},
        ).run_decompositions(),
    }
    for name, program in programs.items():
        file = tmp_path / f"{name}.pt2"
        torch.export.save(program, file)
        with zipfile.ZipFile(file) as opened:
            archive.check(opened)
