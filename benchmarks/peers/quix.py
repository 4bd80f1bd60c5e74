"""Quix Streams with ONNX Runtime, record by record as its data frames have it; in the peers' environment.

python quix.py BOOTSTRAP GROUP SOURCE TARGET MODEL at-least-once|exactly-once DIRECTORY
"""

import sys
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import onnxruntime  # type: ignore[import-not-found]  # of the peers' environment
from quixstreams import Application  # type: ignore[import-not-found]  # likewise


def network(path: str) -> Callable[[bytes], bytes]:
    """Load the network, on one thread, as what turns a request into its result."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def infer(value: bytes) -> bytes:
        request = msgpack.unpackb(value)
        image = np.frombuffer(request["inputs"][0]["data"], np.float32)[None]
        (scores,) = session.run(None, {"image": image})
        output = {"name": "scores", "datatype": "FP32", "shape": [10], "data": scores.tobytes()}
        result: bytes = msgpack.packb({"id": request["id"], "model_name": "mlp", "outputs": [output]})
        return result

    return infer


def main(*given: str) -> None:
    """Run until SIGTERM."""
    bootstrap, group, source, target, model, guarantee, directory = given
    settings: dict[str, Any] = {
        "broker_address": bootstrap,
        "consumer_group": group,
        "auto_offset_reset": "earliest",
        "processing_guarantee": guarantee,
        "commit_interval": 0.5,
        "auto_create_topics": False,
        "state_dir": directory,
        "loglevel": "WARNING",
        "consumer_extra_config": {"fetch.queue.backoff.ms": 5, "queued.max.messages.kbytes": 262_144},
        "producer_extra_config": {"linger.ms": 5, "queue.buffering.max.messages": 1_000_000},
    }
    application = Application(**settings)
    read = application.topic(source, value_deserializer="bytes", key_deserializer="bytes")
    written = application.topic(target, value_serializer="bytes", key_serializer="bytes")
    application.dataframe(read).apply(network(model)).to_topic(written)
    application.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
