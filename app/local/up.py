"""`braid up`: OpenSearch, a Redis protocol server and the service on this machine, until a signal ends them all."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2
from rich.console import Console

from app.config import Settings
from app.embedded.models import ensure_model
from app.embedded.node import EmbeddedCluster, start_cluster
from app.embedded.process import ServerProcess
from app.embedded.valkey import EmbeddedValkey, start_valkey
from app.errors import ProvisioningError
from app.gateway.cors import allowed_origins
from app.gateway.flags import check_flags
from app.gateway.identity import check_exposure
from app.gateway.limits import check_limits
from app.ingest.run import IngestOptions
from app.local import state
from app.local.assets import open_store
from app.local.flags import own_file
from app.local.ingest import ingest_and_report
from app.local.output import print_json
from app.local.server import drain_s
from app.search.rerankers import check_reranker

_POLL_S = 0.5
_LOG = "service.log"
_COPIES = 2
"""Of each shard beside the first, where there are nodes enough and nothing else is set."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The options of `braid up` that are no settings."""

    paths: tuple[Path, ...]
    ingest: IngestOptions
    nodes: int = 1
    local_llm: bool = False
    as_json: bool = False


class _Stop(KeyboardInterrupt):
    """A signal asked to stop; whatever ends well on Ctrl-C ends well on this."""


def run(settings: Settings, options: UpOptions, *, console: Console) -> int:
    """Run until SIGTERM or Ctrl-C (exit code 0) or until a part dies (1).

    Raises:
        ProvisioningError: a part can't be started, or OpenSearch died.
        ConfigurationError: a setting is wrong.
    """
    check_exposure(settings)
    check_limits(settings)
    allowed_origins(settings)
    if "audit_log" not in settings.model_fields_set:
        settings = settings.model_copy(update={"audit_log": str(settings.data_dir / state.AUDIT_FILE)})
    running = state.read(settings.data_dir)
    if running is not None:
        raise ProvisioningError(
            f"braid up runs already with the data in {settings.data_dir}: {running.url} (process {running.pid}); "
            "stop it, or give another folder with --data"
        )
    check_reranker(settings)
    check_flags(settings)
    settings = settings.model_copy(update={"port": _free_port(settings)})
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _raise_stop)
    try:
        with contextlib.ExitStack() as stack:
            return _run(settings, options, console, stack)
    except KeyboardInterrupt:
        console.print("stopped")
        return 0


def _run(settings: Settings, options: UpOptions, console: Console, stack: contextlib.ExitStack) -> int:
    stack.callback(state.remove, settings.data_dir)
    settings, cluster, valkey = _start_parts(settings, options, console, stack)
    store = open_store(settings)
    store.apply(console)
    service = _service(settings)
    stack.callback(service.stop)
    url = f"http://{'[' + settings.host + ']' if ':' in settings.host else settings.host}:{settings.port}"
    _wait_until_ready(url, service, settings)
    opensearch_url, redis_url = settings.opensearch_url or "", settings.redis_url or ""
    flags_file = str(settings.flags_file.resolve()) if settings.flags_file is not None else None
    state.write(settings.data_dir, state.LocalState(url, opensearch_url, redis_url, os.getpid(), flags_file))
    console.print(f"serving at [bold]{url}[/] (OpenSearch {opensearch_url}, data in {settings.data_dir})")
    if options.paths:
        ingest_and_report(settings, options.paths, options.ingest, as_json=False, console=console)
    if options.as_json:
        line = {"url": url, "opensearch_url": opensearch_url, "redis_url": redis_url, "pid": os.getpid()}
        print_json(line)
    console.print(f"ready: [bold]{url}[/]  (Ctrl-C stops everything)")
    return _watch(service, cluster, valkey, settings, console)


def _start_parts(
    settings: Settings, options: UpOptions, console: Console, stack: contextlib.ExitStack
) -> tuple[Settings, EmbeddedCluster | None, EmbeddedValkey | None]:
    """Whatever the environment does not name is started here, side by side."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    found: dict[str, object] = {}
    cluster: EmbeddedCluster | None = None
    valkey: EmbeddedValkey | None = None

    def say(line: str) -> None:
        console.print(line, markup=False)

    if settings.flags_file is None and settings.flagd is None:
        found["flags_file"] = own_file(settings.data_dir)
    if settings.embedding_path is None:
        ensure_model(settings.embedding_model, settings.embedding_precision, settings)
    if settings.opensearch_url is None:
        cluster = start_cluster(
            settings, data_dir=settings.data_dir / "opensearch", nodes=options.nodes, on_progress=say
        )
        stack.callback(cluster.stop)
        found["opensearch_url"] = cluster.addresses
        if options.nodes > 1 and "replicas" not in settings.model_fields_set:
            found["replicas"] = min(options.nodes - 1, _COPIES)  # a node may then be lost
    if settings.redis_url is None:
        valkey = start_valkey(settings, data_dir=settings.data_dir / "valkey")
        stack.callback(valkey.stop)
        found["redis_url"] = valkey.url
    if options.local_llm:
        from app.embedded.llm import start_local_llm

        llm = start_local_llm(settings)
        stack.callback(llm.stop)
        found |= {"llm_url": llm.url, "llm_model": llm.model}
    return settings.model_copy(update=found), cluster, valkey


def _service(settings: Settings) -> ServerProcess:
    """The server process; it gets every setting of ours, whatever the environment said."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BRAID_")}
    return ServerProcess(
        [sys.executable, "-m", "app.cli", "serve"],
        log=settings.data_dir / _LOG,
        cwd=Path.cwd(),
        env=environment | settings.as_environment(),
        grace_s=drain_s(settings) + 5.0,
    )


def _log_tail(settings: Settings, lines: int = 5) -> str:
    text = (settings.data_dir / _LOG).read_text(encoding="utf-8", errors="replace")
    return " | ".join(text.strip().splitlines()[-lines:])


def _wait_until_ready(url: str, service: ServerProcess, settings: Settings, timeout_s: float = 120) -> None:
    until = time.monotonic() + timeout_s
    last = "no answer"
    while time.monotonic() < until:
        if service.exit_code is not None:
            raise ProvisioningError(f"the service ended at start with code {service.exit_code}: {_log_tail(settings)}")
        try:
            answer = httpx2.get(f"{url}/readyz", timeout=5, trust_env=False)
            if answer.status_code == 200:
                return
            last = "; ".join(answer.json().get("problems", [])) or f"status {answer.status_code}"
        except (httpx2.HTTPError, ValueError) as error:
            last = type(error).__name__
        time.sleep(0.1)
    raise ProvisioningError(f"the service is not ready after {timeout_s:.0f} s: {last}")


def _watch(
    service: ServerProcess,
    cluster: EmbeddedCluster | None,
    valkey: EmbeddedValkey | None,
    settings: Settings,
    console: Console,
) -> int:
    told: set[int] = set()
    while True:
        if service.exit_code is not None:
            console.print(f"the service ended with code {service.exit_code}: {_log_tail(settings)}", style="red")
            return 1
        if cluster is not None:
            if not cluster.can_go_on:
                cluster.check_alive()
            for number in set(cluster.ended) - told:
                told.add(number)
                console.print(f"the others go on: {cluster.obituary(number)}", style="red", markup=False)
        if valkey is not None and (died := valkey.obituary):
            console.print(
                f"{died}\nthe service goes on without caches, and counts limits in each worker; start braid up again "
                "to have them back",
                style="red",
                markup=False,
            )
            valkey = None
        time.sleep(_POLL_S)


def _free_port(settings: Settings) -> int:
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise ProvisioningError(
                f"can't listen on {settings.host} port {settings.port}: {error.strerror}; "
                "choose another with --port (0 takes a free one)"
            ) from error
        port: int = probe.getsockname()[1]
        return port


def _raise_stop(_number: int, _frame: object) -> None:
    # a second signal while things are being stopped must not leave them running
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise _Stop
