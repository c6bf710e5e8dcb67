"""Server process: gunicorn with threads, one application per worker."""

from __future__ import annotations

import logging
import math
import os
import resource
import sys
import tempfile
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from app.api.factory import ENDPOINTS, create_app
from app.api.services import Services
from app.config import Settings
from app.gateway.admission import concurrency_of
from app.gateway.arrival import Arrivals, exposure_warning, trusted_proxies
from app.gateway.audit import AuditLog
from app.gateway.cors import allowed_origins
from app.gateway.flags import check_flags
from app.gateway.identity import require_authentication
from app.gateway.rate_limits import check_limits
from app.server_worker import LINE_LIMIT, Worker, WorkerLog, check_request, limit_silence

_CONNECTIONS = 1000
"""Connections of one worker, including idle ones; half of the file descriptors if the system allows few."""
_SPARE_THREADS = 8
"""Threads for probes, metrics and the page, in addition to running and waiting requests."""
_LOOP_TIMEOUT_S = 25
"""Seconds without a sign of life from a worker's loop, which is independent of requests, until it is replaced."""
_LONGEST_DRAIN_S = 600


def drain_s(settings: Settings) -> int:
    """Return the seconds in which a stopping worker finishes its requests: the default maximum time of an answer."""
    answer = settings.search.timeout_ms / 1000 + (settings.llm.timeout_s if settings.llm.url is not None else 0)
    return max(30, min(_LONGEST_DRAIN_S, math.ceil(answer) + 5))


def server_threads(settings: Settings) -> int:
    """Return the threads of a worker, without those that wait for the language model (`request_threads`): one for each
    waiting request, each write, and probes.
    """
    return max(
        settings.server.threads,
        concurrency_of(settings.limits) + settings.limits.queue + settings.limits.writes + _SPARE_THREADS,
    )


def check_settings(settings: Settings) -> None:
    """Validate the settings that every worker needs, so that a wrong one fails the start once and by name.

    Raises:
        ConfigurationError: a limit, an origin, a proxy, the audit log, the flag file or the address is invalid.
    """
    require_authentication(settings)
    check_flags(settings.flags)
    check_limits(settings)
    trusted_proxies(settings.server)
    allowed_origins(settings.server)
    AuditLog(settings.server.audit_log).close()


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn around `create_app`; each worker opens its own connections and loads its own model."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        settings = self.settings
        host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
        options: dict[str, Any] = {
            "bind": f"{host}:{settings.server.port}",
            "workers": settings.server.workers,
            "worker_class": Worker,
            "logger_class": WorkerLog,
            "threads": server_threads(settings),
            "worker_connections": min(_CONNECTIONS, _raise_descriptor_limit(4 * _CONNECTIONS) // 2),
            "max_requests": settings.server.worker_max_requests,
            "max_requests_jitter": settings.server.worker_max_requests // 5,
            "keepalive": 75,
            "timeout": _LOOP_TIMEOUT_S,
            "graceful_timeout": drain_s(settings),
            "limit_request_line": LINE_LIMIT,
            "http_parser": "python",
            "sendfile": False,  # Python's sendfile would wait for a silent client indefinitely
            # no proxy headers are used, so none may change the request
            "forwarded_allow_ips": "",
            "secure_scheme_headers": {},
            "forwarder_headers": "",
            "control_socket_disable": True,
            "loglevel": "warning",
            "proc_name": "braid",
        }
        for name, value in options.items():
            self.cfg.set(name, value)
        self.cfg.set("when_ready", limit_silence)
        self.cfg.set("pre_request", check_request)
        self.cfg.set("worker_exit", _end_worker)
        if settings.server.workers > 1:
            self.cfg.set("child_exit", _forget_worker)

    def load(self) -> Flask:
        services = Services.open(self.settings)
        services.writes.open_spool()  # also removes the files of dead workers
        app = create_app(services)
        app.wsgi_app = Arrivals(  # type: ignore[method-assign]
            app.wsgi_app,
            trusted_proxies(self.settings.server),
            [(endpoint.method, endpoint.rule) for endpoint in ENDPOINTS if endpoint.sheds],
            lambda: services.admission.is_busy,
        )
        return app


def _end_worker(_server: object, worker: Any) -> None:
    """Write the rest of the query log in the worker that ends."""
    if worker.nr >= worker.max_requests:
        worker.log.warning("worker %s is replaced after %d requests", worker.pid, worker.nr)
    app = getattr(worker, "wsgi", None)
    if isinstance(app, Flask):  # a worker that failed to start has none
        app.extensions["braid"].close()
        app.extensions["braid_audit"].close()


def _forget_worker(_server: object, worker: Any) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _raise_descriptor_limit(wanted: int) -> int:
    """Raise this process's limit of file descriptors to `wanted`, or as far as allowed; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def configure_logging() -> None:
    """Log to standard error. `store.client` suppresses OpenSearch's client: its lines contain ids of keys."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # httpx2 logs the URL of each request, including passwords
    for noisy in ("httpx", "httpx2", "openai", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def serve(settings: Settings) -> None:
    """Serve until a signal arrives. Does not return.

    Raises:
        ConfigurationError: no store is configured, or the address is public without a credential, or a limit, an origin
            or the audit log is invalid.
    """
    check_settings(settings)
    configure_logging()
    if (warning := exposure_warning(settings.server)) is not None:
        logging.getLogger("braid.server").warning("%s", warning)
    if settings.server.workers > 1 and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        # prometheus_client reads it at import, which has already happened: start again
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="braid-metrics-")
        os.execv(sys.executable, [sys.executable, "-m", "app.cli", "serve"])  # noqa: S606
    Server(settings).run()
