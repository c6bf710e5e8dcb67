"""The server process: gunicorn with threads, one application a worker."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from app.api.factory import create_app
from app.api.services import Services
from app.config import Settings
from app.gateway.identity import check_exposure


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn around `create_app`; each worker opens its own connections and loads its own model."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        settings = self.settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        options: dict[str, Any] = {
            "bind": f"{host}:{settings.port}",
            "workers": settings.workers,
            "worker_class": "gthread",
            "threads": settings.threads,
            "keepalive": 75,
            "timeout": 120,
            "graceful_timeout": 30,
            "limit_request_line": 8190,
            "control_socket_disable": True,
            "loglevel": "warning",
            "proc_name": "braid",
        }
        for name, value in options.items():
            self.cfg.set(name, value)
        self.cfg.set("worker_exit", _close_services)
        if settings.workers > 1:
            self.cfg.set("child_exit", _forget_worker)

    def load(self) -> Flask:
        return create_app(Services.open(self.settings))


def _close_services(_server: object, worker: Any) -> None:
    """In the worker, when it ends: what is left of the query log is written."""
    app = getattr(worker, "wsgi", None)
    if isinstance(app, Flask):  # a worker that could not start has none
        app.extensions["braid"].close()


def _forget_worker(_server: object, worker: Any) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def serve(settings: Settings) -> None:
    """Serve until a signal ends it. Does not return.

    Raises:
        ConfigurationError: no store is named, or the address is open to strangers without a key.
    """
    check_exposure(settings)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("opensearch", "httpx", "openai", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if settings.workers > 1 and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        # prometheus_client reads it when it is imported, which has happened by now: begin again
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="braid-metrics-")
        os.execv(sys.executable, [sys.executable, "-m", "app.cli", "serve"])  # noqa: S606
    Server(settings).run()
