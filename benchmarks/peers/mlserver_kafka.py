"""MLServer in its Kafka mode with ONNX Runtime; in an environment of its own.

python mlserver_kafka.py BOOTSTRAP GROUP SOURCE TARGET MODEL none DIRECTORY

It joins no group and commits nothing. To read a topic from its beginning it has no setting: that is patched in. Tuned:
it infers in its own process and one record at a time, since its pool of processes and its adaptive batching cost more
than they bring for a network this small; it logs no record, and its producer waits for more than one.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

import numpy as np
import onnxruntime  # type: ignore[import-not-found]  # of the peer's environment
import uvloop  # type: ignore[import-not-found]  # likewise
from mlserver import MLModel, MLServer, ModelSettings, Settings  # type: ignore[import-not-found]  # likewise
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]  # likewise
from mlserver.kafka import server as kafka  # type: ignore[import-not-found]  # likewise
from mlserver.settings import ModelParameters  # type: ignore[import-not-found]  # likewise
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]  # likewise

NAME = "mlp"
CONSUMER: dict[str, Any] = {"auto_offset_reset": "earliest"}
PRODUCER: dict[str, Any] = {"acks": "all", "linger_ms": 5, "max_batch_size": 262_144}


class Network(MLModel):  # type: ignore[misc]  # a class of the peer's environment
    """The network, on one thread."""

    async def load(self) -> bool:
        """Open the file."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = self.settings.parameters.uri
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Infer a request, or the rows of several."""
        image = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32).reshape(-1, 784)
        (scores,) = self._session.run(None, {"image": image})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])


def free_ports(count: int) -> Sequence[int]:
    """Find ports for the servers that are started beside and not used."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


async def serve(bootstrap: str, source: str, target: str, model: str) -> None:
    """Serve until SIGTERM."""
    http, grpc = free_ports(2)
    settings = Settings(
        debug=False,
        parallel_workers=0,
        host="127.0.0.1",
        http_port=http,
        grpc_port=grpc,
        metrics_endpoint=None,
        kafka_enabled=True,
        kafka_servers=bootstrap,
        kafka_topic_input=source,
        kafka_topic_output=target,
    )
    network = ModelSettings(name=NAME, implementation=Network, parameters=ModelParameters(uri=model))
    server = MLServer(settings)
    for each in ("mlserver", "mlserver.kafka"):
        logging.getLogger(each).setLevel(logging.WARNING)
    await server.start([network])


def main(*given: str) -> None:
    """Run until SIGTERM."""
    bootstrap, _group, source, target, model, _guarantee, directory = given
    os.chdir(directory)
    kafka.AIOKafkaConsumer = partial(kafka.AIOKafkaConsumer, **CONSUMER)
    kafka.AIOKafkaProducer = partial(kafka.AIOKafkaProducer, **PRODUCER)
    uvloop.install()
    asyncio.run(serve(bootstrap, source, target, model))


if __name__ == "__main__":
    main(*sys.argv[1:])
