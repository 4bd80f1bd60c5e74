"""A model server for the bridge: Mosec with ONNX Runtime, which batches the requests that have gathered.

MODEL=FILE python mosec_server.py --address 127.0.0.1 --port PORT
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

from typing import Any

import msgpack
import numpy as np
import onnxruntime  # type: ignore[import-not-found]  # of the peer's environment
from mosec import Server, Worker  # type: ignore[import-not-found]  # likewise

ROWS_MAX, WAIT_MS = 512, 1


class Network(Worker):  # type: ignore[misc]  # a class of the peer's environment
    """The network, on one thread."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def deserialize(self, data: bytes) -> Any:
        """Decode one request."""
        return msgpack.unpackb(data)

    def forward(self, data: list[Any]) -> list[Any]:
        """Infer the requests of a batch."""
        image = np.frombuffer(b"".join([request["inputs"][0]["data"] for request in data]), np.float32)
        (scores,) = self._session.run(None, {"image": image.reshape(len(data), -1)})
        output = {"name": "scores", "datatype": "FP32", "shape": [10]}
        return [
            {"id": request["id"], "model_name": "mlp", "outputs": [{**output, "data": row.tobytes()}]}
            for request, row in zip(data, scores, strict=True)
        ]

    def serialize(self, data: Any) -> bytes:
        """Encode one result."""
        encoded: bytes = msgpack.packb(data)
        return encoded


if __name__ == "__main__":
    server = Server()
    server.append_worker(Network, num=1, max_batch_size=ROWS_MAX, max_wait_time=WAIT_MS)
    server.run()
