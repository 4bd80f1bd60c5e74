"""The HTTP endpoint: health, status and figures.

Owns one daemon thread that serves them, so that a scrape never waits for the loop, nor the loop for a scrape. Must not
know what the figures mean.
"""

import socket
import threading

import orjson
import uvicorn
from prometheus_client import CollectorRegistry, exposition
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from consumer.errors import ConfigError
from consumer.observe.health import Health
from consumer.observe.options import HttpOptions

_STOP_S = 2.0
"""How long `stop` waits for the thread; it is a daemon and keeps nobody alive."""


def application(health: Health, registry: CollectorRegistry) -> Starlette:
    """Make the ASGI application: `/healthz`, `/readyz`, `/status` and `/metrics`."""

    async def healthz(_request: Request) -> Response:
        stalled = health.stalled()
        return _plain([] if stalled is None else [stalled])

    async def readyz(_request: Request) -> Response:
        return _plain(health.not_ready())

    async def status(_request: Request) -> Response:
        return Response(orjson.dumps(health.status()), media_type="application/json")

    async def metrics(request: Request) -> Response:
        encode, content_type = exposition.choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/status", status),
            Route("/metrics", metrics),
        ]
    )


def _plain(reasons: list[str]) -> Response:
    """Answer 200 and `ok`, or 503 and one reason a line."""
    return PlainTextResponse("\n".join(reasons or ["ok"]) + "\n", status_code=503 if reasons else 200)


class HttpServer:
    """Serves the application from a thread of its own.

    Args:
        options: Where to listen.
        health: What `/healthz`, `/readyz` and `/status` tell.
        registry: What `/metrics` shows.

    Raises:
        ConfigError: The address cannot be listened on.
    """

    def __init__(self, options: HttpOptions, health: Health, registry: CollectorRegistry) -> None:
        self._socket = _listen(options)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        """Host and port that are listened on."""
        self._server = uvicorn.Server(
            uvicorn.Config(
                application(health, registry),
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
                server_header=False,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="http", daemon=True
        )

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no more, and free the port."""
        self._server.should_exit = True
        self._thread.join(_STOP_S)
        self._socket.close()


def _listen(options: HttpOptions) -> socket.socket:
    """Bind before the thread starts: a port in use is told at start, in one line."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=64)
    except OSError as error:
        raise ConfigError(
            f"http: cannot listen on {options.host}:{options.port} ({error.strerror or error}); "
            "choose another http.host or http.port, or set http.enabled to false"
        ) from error
