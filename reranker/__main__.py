"""``python -m reranker --model FOLDER``: the reranker as a server of its own. Settings: BRAID_RERANKER_*."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError

from reranker.config import ServerSettings, load_settings
from reranker.cross_encoder import CrossEncoder
from reranker.errors import ConfigurationError, RerankerError
from reranker.scheduler import MicroBatcher
from reranker.server import create_app

CONFIGURATION_EXIT = 2


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with one worker of many threads; the worker loads the model, since a session does not survive a fork.

    SIGTERM drains: the server accepts nothing new and answers the requests under way, for up to `drain_s` seconds.
    gunicorn restarts a worker that dies.
    """

    def __init__(self, settings: ServerSettings, *, as_json: bool) -> None:
        self.settings = settings
        self.as_json = as_json
        super().__init__()

    def load_config(self) -> None:
        settings = self.settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        options: dict[str, Any] = {
            "bind": f"{host}:{settings.port}",
            "workers": 1,
            "worker_class": "gthread",
            "threads": settings.http_threads,
            "keepalive": 75,
            "timeout": 120,
            "graceful_timeout": settings.drain_s,
            "limit_request_line": 8190,
            "control_socket_disable": True,
            "loglevel": "warning",
            "proc_name": "braid-reranker",
            "post_worker_init": self._announce,
            "worker_exit": _close,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        settings = self.settings
        try:
            model = CrossEncoder(settings.model, threads=settings.threads, provider=settings.provider)
        except ConfigurationError as error:
            # the one error that makes gunicorn stop instead of restarting the worker again and again
            raise AppImportError(f"the reranker cannot start: {error.detail}") from error
        batcher = MicroBatcher(model, gather_ms=settings.gather_ms, max_pairs=settings.max_queue_pairs)
        return create_app(settings, model, batcher)

    def _announce(self, worker: Any) -> None:
        host, port = worker.sockets[0].getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if not self.as_json:
            logging.getLogger("reranker").info("answering at %s", url)
        elif worker.age == 1:
            print(json.dumps({"url": url, "pid": os.getppid()}), flush=True)


def _close(_server: object, worker: Any) -> None:
    app = getattr(worker, "wsgi", None)
    if isinstance(app, Flask):  # a worker that failed to start has no app
        app.extensions["reranker"].close()


def serve(settings: ServerSettings, *, as_json: bool = False) -> None:
    """Serve until a signal arrives. Ends the process; the exit code is 2 if the model can't be loaded."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    here = os.getpid()
    try:
        Server(settings, as_json=as_json).run()
    except SystemExit as ended:
        # a worker passes here, too; gunicorn needs the worker's own code
        if os.getpid() == here and ended.code in {Arbiter.APP_LOAD_ERROR, Arbiter.WORKER_BOOT_ERROR}:
            sys.exit(CONFIGURATION_EXIT)
        raise


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", type=click.Path(path_type=Path), help="The cross-encoder's folder.")
@click.option("--host", help="Address to listen on; anything but loopback needs BRAID_RERANKER_KEY.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 picks a free one. Default 8090.")
@click.option("--provider", help="auto, cpu, openvino, cuda or tensorrt.")
@click.option("--threads", type=click.IntRange(0), help="Threads per inference; 0: one per core.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON when ready.")
def main(as_json: bool, **options: object) -> None:
    """Score (query, document) pairs over HTTP: POST /v1/rerank (Cohere, Jina), /rerank (text-embeddings-inference).

    All settings are BRAID_RERANKER_* variables: see docs/reranker.md.
    """
    try:
        serve(load_settings(**options), as_json=as_json)
    except RerankerError as error:
        click.echo(f"the reranker cannot start: {error.detail}", err=True)
        sys.exit(CONFIGURATION_EXIT)


if __name__ == "__main__":
    main()
