"""The server process: gunicorn with threads, one application a worker."""

from __future__ import annotations

import logging
import math
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from app.api.factory import create_app
from app.api.services import Services
from app.config import Settings
from app.gateway.admission import concurrency_of
from app.gateway.audit import AuditLog
from app.gateway.cors import allowed_origins
from app.gateway.flags import check_flags
from app.gateway.identity import check_exposure
from app.gateway.limits import check_limits
from app.local.connection import LINE_LIMIT, BodyReader
from app.local.worker import Worker, raise_descriptor_limit

_CONNECTIONS = 1000
"""Of one worker, idle ones too; fewer where the system gives few file descriptors."""
_SPARE_THREADS = 8
"""For probes, metrics and the page, beside the requests that are worked on or wait for their turn."""
_FROZEN_S = 25
"""A worker whose loop says nothing for so long is replaced; the loop works independently of the requests."""
_LONGEST_DRAIN_S = 600


def drain_s(settings: Settings) -> int:
    """Seconds in which a stopping worker ends what it has begun: the longest that an answer may take by default."""
    answer = settings.timeout_ms / 1000 + (settings.llm_timeout_s if settings.llm_url is not None else 0)
    return max(30, min(_LONGEST_DRAIN_S, math.ceil(answer) + 5))


def server_threads(settings: Settings) -> int:
    """Threads of a worker: whoever waits for a turn has one, each write does, and so do probes meanwhile."""
    return max(settings.threads, concurrency_of(settings) + settings.queue + settings.writes + _SPARE_THREADS)


def check_settings(settings: Settings) -> None:
    """See that what every worker will need is right, so that the start fails once and by name.

    Raises:
        ConfigurationError: a limit, an origin, the audit log, the file of flags or the address is wrong.
    """
    check_exposure(settings)
    check_flags(settings)
    check_limits(settings)
    allowed_origins(settings)
    AuditLog(settings.audit_log).close()


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
            "worker_class": Worker,
            "threads": server_threads(settings),
            "worker_connections": min(_CONNECTIONS, raise_descriptor_limit(4 * _CONNECTIONS) // 2),
            "max_requests": settings.worker_max_requests,
            "max_requests_jitter": settings.worker_max_requests // 5,
            "keepalive": 75,
            "timeout": _FROZEN_S,
            "graceful_timeout": drain_s(settings),
            "limit_request_line": LINE_LIMIT,
            "http_parser": "python",
            "sendfile": False,  # the system's would wait for a client as long as it likes
            # no proxy's headers are used, so none may change what a request says
            "forwarded_allow_ips": "",
            "secure_scheme_headers": {},
            "forwarder_headers": "",
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
        services = Services.open(self.settings)
        services.writes.open_spool()  # also removes what dead workers left
        app = create_app(services)
        app.wsgi_app = _Answering(app.wsgi_app)  # type: ignore[method-assign]
        return app


class _Answering:
    """Tells the body's reader when the answer begins."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        def start(*arguments: Any) -> Any:
            body = getattr(environ["wsgi.input"], "reader", None)
            if isinstance(body, BodyReader):
                body.answer()
            return start_response(*arguments)

        return self._application(environ, start)


def _close_services(_server: object, worker: Any) -> None:
    """In the worker, when it ends: what is left of the query log is written."""
    app = getattr(worker, "wsgi", None)
    if isinstance(app, Flask):  # a worker that could not start has none
        app.extensions["braid"].close()
        app.extensions["braid_audit"].close()


def _forget_worker(_server: object, worker: Any) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def serve(settings: Settings) -> None:
    """Serve until a signal ends it. Does not return.

    Raises:
        ConfigurationError: no store is named, or the address is open to strangers without a key, or a limit, an
            origin or the audit log is wrong.
    """
    check_settings(settings)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # httpx2 says the address of each request, passwords and all
    for noisy in ("opensearch", "httpx", "httpx2", "openai", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if settings.workers > 1 and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        # prometheus_client reads it when it is imported, which has happened by now: begin again
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="braid-metrics-")
        os.execv(sys.executable, [sys.executable, "-m", "app.cli", "serve"])  # noqa: S606
    Server(settings).run()
