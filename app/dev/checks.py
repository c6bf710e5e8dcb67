"""Checks of this machine, the models and the cluster, each with the remedy for a failure."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import psutil

from app.cache.connection import RedisConnection
from app.calibration import calibration_for
from app.config import Settings
from app.deadline import Deadline
from app.dev import state
from app.dev.node import NODE_FOLDER, kept_release
from app.dev.ports import bind_port
from app.embedding.text_encoder import load_text_encoder
from app.errors import BraidError
from app.provision.java import find_java
from app.provision.opensearch import find_home
from app.search.rerankers import load_reranker
from app.serving.cluster_watch import ClusterWatch
from app.serving.opening import open_store
from app.store import templates
from reranker.runtime.session import installed_builds

_GIB = 1024**3
_RERANKER_MS = 2000


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check, and its remedy."""

    check: str
    status: Literal["ok", "warning", "failed"]
    found: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield all checks in order of their dependencies."""
    local = settings.opensearch.url is None
    if local:
        yield _check("Java", lambda: _describe_java(settings))
        maven = shutil.which("mvn")
        yield Finding(
            "Maven",
            "ok" if maven else "failed",
            maven or "not on PATH",
            "" if maven else "install Maven, or set BRAID_OPENSEARCH_URL and BRAID_EMBEDDING_PATH",
        )
    yield _memory(local)
    yield _disk(settings)
    running = state.read(settings.machine.data_dir)
    if running is not None:
        yield Finding("braid up", "ok", f"runs at {running.url} (process {running.pid})")
    else:
        yield _port(settings)
    yield _runtime()
    yield _check("embedding model", lambda: _describe_encoder(settings))
    yield _calibration(settings)
    yield _reranker(settings)
    yield _redis(settings)
    if settings.opensearch.url is None:
        yield Finding(
            "cluster", "warning", "none runs here and none is configured", "`braid up`, or set BRAID_OPENSEARCH_URL"
        )
        return
    yield from _cluster(settings)


def _check(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, "ok", look())
    except BraidError as error:
        return Finding(check, "failed", error.title, error.detail)


def _describe_java(settings: Settings) -> str:
    machine = settings.machine
    release = machine.opensearch_version or kept_release(machine.data_dir / NODE_FOLDER)
    major = find_home(machine).major if machine.opensearch_home else int(release[0])
    java = find_java(machine, major, word_breaks=major >= 3 and machine.opensearch_home is None)
    return f"{java.home} ({java.version}), for OpenSearch {major}.x"


def _memory(local: bool) -> Finding:
    free = psutil.virtual_memory().available / _GIB
    needed = 3.0 if local else 1.0
    return Finding(
        "memory",
        "ok" if free >= needed else "warning",
        f"{free:.1f} GiB available",
        "" if free >= needed else f"{needed:.0f} GiB are recommended: close other programs, or use a cluster elsewhere",
    )


def _disk(settings: Settings) -> Finding:
    folder = settings.machine.data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / _GIB
    return Finding(
        "disk",
        "ok" if free >= 5 else "warning",
        f"{free:.1f} GiB free for {settings.machine.data_dir}",
        "" if free >= 5 else "free some space, or set BRAID_DATA_DIR; OpenSearch stops writing on a full disk",
    )


def _port(settings: Settings) -> Finding:
    name = f"port {settings.server.port}"
    try:
        bind_port(settings.server.host, settings.server.port)
    except OSError as error:
        return Finding(name, "failed", error.strerror or str(error), "choose another: --port, BRAID_PORT")
    return Finding(name, "ok", f"free on {settings.server.host}")


def _runtime() -> Finding:
    builds = installed_builds()
    found = ", ".join(f"{package} {number}" for package, number in builds.items())
    if len(builds) == 1:
        return Finding("ONNX Runtime", "ok", found)
    remedy = f"pip uninstall -y {' '.join(builds)}, then pip install 'braid-rag[cpu]' (or [gpu], or [openvino])"
    return Finding("ONNX Runtime", "warning", f"{found}: they overwrite each other", remedy)


def _describe_encoder(settings: Settings) -> str:
    encoder = load_text_encoder(settings)
    return f"{encoder.name}, {encoder.dimension} dimensions, {encoder.provider}"


def _calibration(settings: Settings) -> Finding:
    try:
        found = calibration_for(settings.embedding, settings.embedding.id)
    except BraidError as error:
        return Finding("calibration", "failed", error.title, error.detail)
    if found is None:
        told = f"none for {settings.embedding.id}: no question is refused, no answer to other words is reused"
        return Finding("calibration", "warning", told, "`braid calibrate` makes one (docs/calibration.md)")
    return Finding("calibration", "ok", f"of {found.about.get('date', 'an unknown date')}")


def _reranker(settings: Settings) -> Finding:
    remedy = "set BRAID_RERANKER_MODEL or BRAID_RERANKER_URL (docs/reranker.md); searches keep their fused order"
    try:
        reranker = load_reranker(settings, load_text_encoder(settings))
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
    connection = RedisConnection(settings.redis)
    if not connection.configured:
        return Finding("Redis", "warning", "none is configured", "set BRAID_REDIS_URL; `braid up` starts one")
    alive = connection.alive()
    connection.close()
    return Finding(
        "Redis",
        "ok" if alive else "warning",
        "answers" if alive else "does not answer",
        "" if alive else "check BRAID_REDIS_URL; the service runs without it",
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
        f"{len(drifts)} differences, the first: {drifts[0]}" if drifts else "as required by this version",
        "`braid templates diff` shows them, `braid templates apply` fixes them" if drifts else "",
    )
    watch = ClusterWatch(store.cluster)
    watch.look(live)
    for warning in watch.warnings:
        yield Finding("upgrade", "warning", *warning.rsplit(". Remedy: ", 1))
    if reason := templates.read_only(live, store.rendered):
        found, _, remedy = reason.partition(". ")
        yield Finding("index", "warning", f"read-only: {found}", remedy)
    if reason := templates.other_languages(live, store.rendered):
        found, _, remedy = reason.partition(". ")
        yield Finding("languages", "warning", f"read-only: {found}", remedy)
