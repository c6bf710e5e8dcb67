"""The real server and worker around an application that takes its time: what draining and replacing is tried with."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from types import SimpleNamespace

from flask import Flask, Response, request

from app import server
from app.config import settings
from app.gateway.arrival import Arrivals, trusted_proxies
from app.server import Server

LOOP_TIMEOUT = "SLOW_APP_LOOP_TIMEOUT_S"
"""Environment variable: seconds until a silent worker is replaced, so that tests need not wait for 25."""


class SlowServer(Server):
    """Serves `/healthz`, `/pid`, `/stream?seconds=N` (a line a fifth of a second), `/busy?seconds=N`, `/v1/search`."""

    def load(self) -> Flask:
        """The application."""
        app = Flask("slow")
        nothing = SimpleNamespace(close=lambda: None)
        app.extensions |= {"braid": nothing, "braid_audit": nothing}

        @app.get("/healthz")
        def healthz() -> str:
            return "ok"

        @app.get("/pid")
        def pid() -> str:
            return str(os.getpid())

        @app.get("/stream")
        def stream() -> Response:
            count = int(float(request.args["seconds"]) * 5)

            def lines() -> Iterator[bytes]:
                yield b"pid %d\n" % os.getpid()
                for number in range(count):
                    time.sleep(0.2)
                    yield b"line %d\n" % number
                yield b"end\n"

            return Response(lines(), content_type="text/plain")

        @app.get("/busy")
        def busy() -> str:
            until = time.monotonic() + float(request.args["seconds"])
            while time.monotonic() < until:
                sum(range(10_000))  # holds the interpreter, as parsing a large body does
            return "done"

        at_work: list[str] = []

        @app.post("/v1/search")
        def search() -> str:
            at_work.append("a search")
            time.sleep(float(request.args["seconds"]))
            at_work.pop()
            return "done"

        @app.get("/large")
        def large() -> Response:
            return Response(b"x" * (64 * 1024 * 1024))

        app.wsgi_app = Arrivals(  # type: ignore[method-assign]
            app.wsgi_app,
            trusted_proxies(self.settings.server),
            [("POST", "/v1/search")],
            lambda: len(at_work) >= self.settings.limits.concurrency,
        )
        return app


if __name__ == "__main__":
    server._LOOP_TIMEOUT_S = int(os.environ.get(LOOP_TIMEOUT, server._LOOP_TIMEOUT_S))
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp()  # `braid serve` does it for several workers
    SlowServer(settings()).run()
