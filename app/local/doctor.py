"""`braid doctor`: checks this machine, the models and the cluster, and names the remedy for each failure."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import orjson
import psutil
from rich.console import Console
from rich.table import Table

from app.cache.connection import RedisConnection
from app.config import Settings
from app.deadline import Deadline
from app.embedded.java import find_java
from app.embedding.encoder import load_encoder
from app.errors import BraidError
from app.local import state
from app.local.assets import open_store
from app.search.rerankers import load_reranker
from app.store import templates

_GIB = 1024**3
_RERANKER_MS = 2000


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, how it went, what was seen, and what to do about it."""

    check: str
    status: Literal["ok", "warning", "failed"]
    found: str
    remedy: str = ""


def run(settings: Settings, *, as_json: bool, console: Console) -> int:
    """Print all findings; exit code 1 if any failed."""
    findings = list(examine(settings))
    if as_json:
        console.file.write(orjson.dumps([asdict(item) for item in findings]).decode() + "\n")
    else:
        table = Table("check", "", "found", "remedy", expand=True)
        for item in findings:
            colour = {"ok": "green", "warning": "yellow", "failed": "red"}[item.status]
            table.add_row(item.check, f"[{colour}]{item.status}[/]", item.found, item.remedy)
        console.print(table, soft_wrap=False)
    return 1 if any(item.status == "failed" for item in findings) else 0


def examine(settings: Settings) -> Iterator[Finding]:
    """All checks in the order in which things depend on each other."""
    local = settings.opensearch_url is None
    if local:
        yield _guarded("Java 17 to 21", lambda: f"{(java := find_java(settings)).home} ({java.version})")
        maven = shutil.which("mvn")
        yield Finding(
            "Maven",
            "ok" if maven else "failed",
            maven or "not on PATH",
            "" if maven else "install Maven, or set BRAID_OPENSEARCH_URL and BRAID_EMBEDDING_PATH",
        )
    yield _memory(local)
    yield _disk(settings)
    running = state.read(settings.data_dir)
    if running is not None:
        yield Finding("braid up", "ok", f"runs at {running.url} (process {running.pid})")
    else:
        yield _port(settings)
    yield _guarded("embedding model", lambda: _describe_encoder(settings))
    yield _reranker(settings)
    yield _redis(settings)
    if settings.opensearch_url is None:
        yield Finding(
            "cluster", "warning", "none runs here and none is named", "`braid up`, or set BRAID_OPENSEARCH_URL"
        )
        return
    yield from _cluster(settings)


def _guarded(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, "ok", look())
    except BraidError as error:
        return Finding(check, "failed", error.title, error.detail)


def _memory(local: bool) -> Finding:
    free = psutil.virtual_memory().available / _GIB
    needed = 3.0 if local else 1.0
    return Finding(
        "memory",
        "ok" if free >= needed else "warning",
        f"{free:.1f} GiB available",
        "" if free >= needed else f"{needed:.0f} GiB are wanted; close something, or use a cluster elsewhere",
    )


def _disk(settings: Settings) -> Finding:
    folder = settings.data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / _GIB
    return Finding(
        "disk",
        "ok" if free >= 5 else "warning",
        f"{free:.1f} GiB free for {settings.data_dir}",
        "" if free >= 5 else "free some, or set BRAID_DATA_DIR; OpenSearch stops writing on a full disk",
    )


def _port(settings: Settings) -> Finding:
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            return Finding(
                f"port {settings.port}", "failed", error.strerror or str(error), "choose another: --port, BRAID_PORT"
            )
    return Finding(f"port {settings.port}", "ok", f"free on {settings.host}")


def _describe_encoder(settings: Settings) -> str:
    encoder = load_encoder(settings)
    return f"{encoder.name}, {encoder.dimension} dimensions, {encoder.provider}"


def _reranker(settings: Settings) -> Finding:
    remedy = "set BRAID_RERANKER_MODEL or BRAID_RERANKER_URL (docs/reranker.md); searches keep their fused order"
    try:
        reranker = load_reranker(settings, load_encoder(settings))
    except BraidError as error:
        return Finding("reranker", "failed", error.title, error.detail)
    if reranker is None:
        return Finding("reranker", "warning", "none", remedy)
    try:
        reranker.score_texts("a query", ["a document"], Deadline.after(_RERANKER_MS))
    except BraidError as error:
        return Finding("reranker", "warning", f"{reranker.name}: {error.title}", error.detail)
    finally:
        reranker.close()
    return Finding("reranker", "ok", reranker.name)


def _redis(settings: Settings) -> Finding:
    connection = RedisConnection(settings)
    if not connection.configured:
        return Finding("Redis", "warning", "none is named", "set BRAID_REDIS_URL; `braid up` starts one")
    alive = connection.alive()
    connection.close()
    return Finding(
        "Redis",
        "ok" if alive else "warning",
        "answers" if alive else "does not answer",
        "" if alive else "check BRAID_REDIS_URL; the service goes on without",
    )


def _cluster(settings: Settings) -> Iterator[Finding]:
    try:
        store = open_store(settings)
    except BraidError as error:
        yield Finding("cluster", "failed", error.title, error.detail)
        return
    yield Finding("cluster", "ok", store.describe())
    try:
        drifts, live = templates.compare(store.cluster, store.rendered)
    except BraidError as error:
        yield Finding("templates", "failed", error.title, error.detail)
        return
    yield Finding(
        "templates",
        "failed" if drifts else "ok",
        f"{len(drifts)} differences" if drifts else "as this version needs them",
        "`braid templates diff` shows them, `braid templates apply` puts them right" if drifts else "",
    )
    if reason := templates.read_only(live, store.rendered):
        found, _, remedy = reason.partition(". ")
        yield Finding("index", "warning", f"read-only: {found}", remedy)
