"""`braid up`: OpenSearch, a Redis protocol server and the service on this machine, until a signal stops them all."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2
from pydantic import SecretStr
from rich.console import Console

from app.addresses import mask_passwords
from app.config import Settings
from app.dev import secret, state
from app.dev.account import private_folder, server_account
from app.dev.guard import USER
from app.dev.node import NODE_FOLDER, EmbeddedCluster, start_cluster
from app.dev.ports import bind_port
from app.dev.process import ServerProcess
from app.dev.valkey import EmbeddedValkey, start_valkey
from app.errors import ProvisioningError, StoreReadOnly
from app.gateway.cors import allowed_origins
from app.gateway.flag_editor import own_file
from app.gateway.flags import check_flags
from app.gateway.identity import require_authentication
from app.gateway.rate_limits import check_limits
from app.ingest.run import IngestOptions
from app.provision.folders import make_folder
from app.search.rerankers import check_reranker
from app.server import drain_s
from app.serving.ingest_paths import ingest_and_report
from app.serving.opening import fetch_model, open_store
from app.terminal import print_json

_POLL_S = 0.5
_LOG = "service.log"
_COPIES = 2
"""Number of replicas if there are enough nodes and no setting says otherwise."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """Options of `braid up` that are not settings."""

    paths: tuple[Path, ...]
    ingest: IngestOptions
    nodes: int = 1
    local_llm: bool = False
    as_json: bool = False


class _StopRequested(KeyboardInterrupt):
    """A signal requested the end; handled everywhere like Ctrl-C."""


def run(settings: Settings, options: UpOptions, *, console: Console) -> int:
    """Run until SIGTERM or Ctrl-C (exit code 0) or until a part dies (1).

    Args:
        settings: servers that they name are used, the others are started.

    Raises:
        ProvisioningError: a part can't be started, or OpenSearch died.
        ConfigurationError: a setting is invalid.
    """
    require_authentication(settings)
    check_limits(settings)
    allowed_origins(settings.server)
    if "audit_log" not in settings.server.model_fields_set:
        settings = settings.with_values(audit_log=str(settings.machine.data_dir / state.AUDIT_FILE))
    running = state.read(settings.machine.data_dir)
    if running is not None:
        raise ProvisioningError(
            f"braid up is already running with the data in {settings.machine.data_dir}: {running.url} "
            f"(process {running.pid}); stop it, or pass another folder with --data"
        )
    check_reranker(settings.reranker)
    check_flags(settings.flags)
    settings = settings.with_values(port=_free_port(settings))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _raise_stop)
    try:
        with contextlib.ExitStack() as stack:
            return _run(settings, options, console, stack)
    except KeyboardInterrupt:
        console.print("stopped")
        return 0


def _run(settings: Settings, options: UpOptions, console: Console, stack: contextlib.ExitStack) -> int:
    stack.callback(state.remove, settings.machine.data_dir)
    settings, cluster, valkey = _start_parts(settings, options, console, stack)
    store = open_store(settings)
    store.apply(console)
    service = _service(settings)
    stack.callback(service.stop)
    host = settings.server.host
    url = f"http://{'[' + host + ']' if ':' in host else host}:{settings.server.port}"
    _wait_until_ready(url, service)
    state.write(settings.machine.data_dir, _state_of(url, settings, cluster))
    opensearch_url, redis_url = mask_passwords(settings.opensearch.url or ""), mask_passwords(settings.redis.url or "")
    console.print(f"serving at [bold]{url}[/] (OpenSearch {opensearch_url}, data in {settings.machine.data_dir})")
    secret_file = (settings.machine.data_dir / secret.FILE_NAME).absolute()
    if cluster is not None:
        by_hand = f'curl -u "{USER}:$(cat {shlex.quote(str(secret_file))})" {cluster.url}/_cat/indices'
        console.print(f"OpenSearch by hand: {by_hand}", markup=False, highlight=False, soft_wrap=True)
    if options.paths:
        try:
            ingest_and_report(settings, options.paths, options.ingest, as_json=False, console=console)
        except StoreReadOnly as error:
            console.print(f"nothing was ingested, but searches work: {error.detail}", style="yellow", markup=False)
    if options.as_json:
        line = {"url": url, "opensearch_url": opensearch_url, "redis_url": redis_url, "pid": os.getpid()}
        print_json(line | ({} if cluster is None else {"opensearch_user": USER, "secret_file": str(secret_file)}))
    console.print(f"ready: [bold]{url}[/]  (Ctrl-C stops everything)")
    return _watch(service, cluster, valkey, console)


def _start_parts(
    settings: Settings, options: UpOptions, console: Console, stack: contextlib.ExitStack
) -> tuple[Settings, EmbeddedCluster | None, EmbeddedValkey | None]:
    """Start all parts that the environment does not name, in parallel."""
    _make_data_folder(settings)
    found: dict[str, object] = {}
    cluster: EmbeddedCluster | None = None
    valkey: EmbeddedValkey | None = None

    def say(line: str) -> None:
        console.print(line, markup=False)

    if settings.flags.file is None:
        found["flags_file"] = own_file(settings.machine.data_dir)
    fetch_model(settings)
    if settings.opensearch.url is None:
        password = secret.own_secret(settings.machine.data_dir)
        cluster = start_cluster(
            settings.machine,
            data_dir=settings.machine.data_dir / NODE_FOLDER,
            nodes=options.nodes,
            secret=password,
            on_progress=say,
        )
        stack.callback(cluster.stop)
        found["opensearch_url"] = cluster.addresses
        found |= {"opensearch_user": USER, "opensearch_password": SecretStr(password)}
        if options.nodes > 1 and "replicas" not in settings.index.model_fields_set:
            found["replicas"] = min(options.nodes - 1, _COPIES)  # the loss of one node is then tolerated
    if settings.redis.url is None:
        valkey = start_valkey(
            data_dir=settings.machine.data_dir / "valkey", secret=secret.own_secret(settings.machine.data_dir)
        )
        stack.callback(valkey.stop)
        found["redis_url"] = valkey.url
    if options.local_llm:
        from app.dev.local_llm import start_local_llm

        llm = start_local_llm(settings.machine)
        stack.callback(llm.stop)
        found |= {"llm_url": llm.url, "llm_model": llm.model}
    return settings.with_values(**found), cluster, valkey


def _make_data_folder(settings: Settings) -> None:
    """Create the folder closed to other users. An existing one may serve other purposes: only our files in it are
    closed.
    """
    if settings.machine.data_dir.exists():
        make_folder(settings.machine.data_dir)
    else:
        private_folder(server_account() if settings.opensearch.url is None else None, settings.machine.data_dir)


def _state_of(url: str, settings: Settings, cluster: EmbeddedCluster | None) -> state.LocalState:
    """Return the state for other commands; the password of an external cluster is not written down."""
    password = settings.opensearch.password if cluster is not None else None
    return state.LocalState(
        url,
        settings.opensearch.url or "",
        settings.redis.url or "",
        os.getpid(),
        flags_file=str(settings.flags.file.resolve()) if settings.flags.file is not None else None,
        opensearch_user=settings.opensearch.user if cluster is not None else None,
        opensearch_password=password.get_secret_value() if password is not None else None,
    )


def _service(settings: Settings) -> ServerProcess:
    """Start the server process with all our settings in place of the environment's."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BRAID_")}
    return ServerProcess(
        [sys.executable, "-m", "app.cli", "serve"],
        log=settings.machine.data_dir / _LOG,
        cwd=Path.cwd(),
        env=environment | settings.as_environment(),
        grace_s=drain_s(settings) + 5.0,
    )


def _obituary(service: ServerProcess) -> str:
    return f"code {service.exit_code}: {' | '.join(service.log_tail(5))}"


def _wait_until_ready(url: str, service: ServerProcess, timeout_s: float = 120) -> None:
    until = time.monotonic() + timeout_s
    last = "no answer"
    while time.monotonic() < until:
        if service.exit_code is not None:
            raise ProvisioningError(f"the service ended at start with {_obituary(service)}")
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
    service: ServerProcess, cluster: EmbeddedCluster | None, valkey: EmbeddedValkey | None, console: Console
) -> int:
    told: set[int] = set()
    while True:
        if service.exit_code is not None:
            console.print(f"the service ended with {_obituary(service)}", style="red")
            return 1
        if cluster is not None:
            if not cluster.can_go_on:
                cluster.check_alive()
            for number in set(cluster.ended) - told:
                told.add(number)
                console.print(f"the other nodes continue: {cluster.obituary(number)}", style="red", markup=False)
        if valkey is not None and (died := valkey.obituary):
            console.print(
                f"{died}\nthe service continues without caches, and counts limits per worker; restart braid up "
                "to restore them",
                style="red",
                markup=False,
            )
            valkey = None
        time.sleep(_POLL_S)


def _free_port(settings: Settings) -> int:
    try:
        return bind_port(settings.server.host, settings.server.port)
    except OSError as error:
        raise ProvisioningError(
            f"can't listen on {settings.server.host} port {settings.server.port}: {error.strerror}; "
            "choose another with --port (0 picks a free one)"
        ) from error


def _raise_stop(_number: int, _frame: object) -> None:
    # a second signal during the shutdown must not leave parts running
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise _StopRequested
