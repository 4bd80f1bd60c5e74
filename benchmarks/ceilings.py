"""Ceilings without Kafka: the network alone on resident tensors, and decoding and inference from memory.

    python -m benchmarks.ceilings WORKLOAD DIRECTORY ROWS THREADS SECONDS [--decode]

Prints records a second as JSON. A process of its own, since it imports torch and its thread counts stand before that;
as many as there are cores run at once where each computes with one thread.
"""

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import records, sentences
from benchmarks.workloads import WORKLOADS, Workload
from schemas.codecs import decode_request

if TYPE_CHECKING:
    import torch

RECORDS = {"W1": 16_384, "W1 JSON": 2_048, "W2": 64, "W3": sentences.DIFFERENT}
"""How many different records a ceiling turns over."""
Batch = dict[str, Any]
Turn = Callable[[], int]
"""Infers all the records once; their number."""


def batches(workload: Workload, rows: int) -> Iterator[Batch]:
    """Make the batches as arrays: sentences in the order of their lengths, so that little is padded."""
    count = RECORDS[workload.name]
    stacked: np.ndarray[Any, Any]
    if workload.network == "crayfish":
        name, stacked = "image", np.stack(records.images(count))
    elif workload.network == "pictures":
        name, stacked = "picture", np.random.default_rng(0).integers(0, 256, (count, 3, 224, 224), dtype=np.uint8)
    else:
        yield from sentence_batches(sorted(records.token_rows(), key=len), rows)
        return
    for first in range(0, count, rows):
        yield {name: stacked[first : first + rows]}


def sentence_batches(sorted_rows: Sequence[np.ndarray[Any, Any]], rows: int) -> Iterator[Batch]:
    """Pad neighbours to the longest of them."""
    for first in range(0, len(sorted_rows), rows):
        chosen = sorted_rows[first : first + rows]
        tokens = np.zeros((len(chosen), max(map(len, chosen))), np.int64)
        mask = np.zeros_like(tokens)
        for row, each in enumerate(chosen):
            tokens[row, : len(each)], mask[row, : len(each)] = each, 1
        yield {"tokens": tokens, "mask": mask}


def network(workload: Workload, directory: Path) -> "Callable[..., torch.Tensor]":
    """Load a workload's network."""
    import torch
    from safetensors.torch import load_file

    if workload.network == "crayfish":
        from benchmarks.networks import load

        return load(directory)
    if workload.network == "pictures":
        program: Callable[..., torch.Tensor] = torch.export.load(directory / "pictures.pt2").module()
        return program
    from benchmarks.bert import Encoder

    encoder = Encoder().eval()
    encoder.load_state_dict(load_file(sentences.WEIGHTS))
    return encoder


def resident(workload: Workload, call: "Callable[..., torch.Tensor]", rows: int) -> Turn:
    """Infer resident tensors, in the order of the network's arguments: an exported program may not know their names."""
    import torch

    ready = [{name: torch.from_numpy(each) for name, each in batch.items()} for batch in batches(workload, rows)]

    def turn() -> int:
        for batch in ready:
            call(*batch.values())
        return RECORDS[workload.name]

    return turn


def decoded(workload: Workload, call: "Callable[..., torch.Tensor]", rows: int) -> Turn:
    """Decode requests from memory, stack them and infer."""
    import torch

    values = list(workload.values(records.fresh(RECORDS[workload.name])))

    def turn() -> int:
        for first in range(0, len(values), rows):
            requests = [decode_request(value, workload.content_type) for value in values[first : first + rows]]
            call(torch.from_numpy(np.stack([np.asarray(request.inputs[0].data) for request in requests])))
        return len(values)

    return turn


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ceilings")
    parser.add_argument("workload", choices=sorted(RECORDS))
    parser.add_argument("directory", type=Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--decode", action="store_true", help="from requests in memory, equal in shape")
    return parser.parse_args()


def main() -> None:
    """Measure one ceiling in whole turns, so that each record weighs the same; the first turn counts for nothing."""
    asked = arguments()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    import torch

    workload = WORKLOADS[asked.workload]
    call = network(workload, asked.directory)
    torch.set_num_threads(asked.threads)
    with torch.inference_mode():
        turn = (decoded if asked.decode else resident)(workload, call, asked.rows)
        turn()
        gc.freeze()
        count, started_s = 0, time.perf_counter()
        while time.perf_counter() - started_s < asked.seconds:
            count += turn()
        seconds = time.perf_counter() - started_s
    print(json.dumps({"records_per_s": count / seconds, "rows": asked.rows, "threads": asked.threads}))


if __name__ == "__main__":
    main()
