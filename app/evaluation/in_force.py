"""Activation of tunings: read from a file, numbered, and applied to every service of the cluster."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
from pydantic import ValidationError
from rich.console import Console

from app.cache.connection import RedisConnection
from app.cache.generation import IndexGeneration
from app.errors import InvalidInput
from app.serving.opening import Store
from app.store import templates, tunings
from app.store.client import READ_ALIAS
from app.store.rendering import RenderedResources
from app.store.similarity import has_similarity, set_similarity
from app.tuning import Bm25, Tuning


def read_tuning(path: Path) -> tuple[Tuning, bool]:
    """Read the tuning of a file that `braid tune` wrote, and whether it was better.

    Raises:
        InvalidInput: the file is unreadable or contains no tuning.
    """
    try:
        body = orjson.loads(path.read_bytes())
        return Tuning.model_validate(body["tuning"], strict=False), bool(body["better"])
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}; `braid tune SET` writes such a file") from error
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} contains no tuning ({error}); `braid tune SET` writes such a file") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{path}: tuning.{where}: {first['msg']} (got {first['input']!r})") from error


def put_in_force(store: Store, tuning: Tuning, console: Console) -> Tuning:
    """Number a tuning, store it, and activate it in every service of the cluster."""
    numbered = tuning.model_copy(update={"version": tunings.next_version(store.cluster)})
    tunings.keep(store.cluster, numbered)
    return switch(store, numbered.version, console)


def switch(store: Store, version: int, console: Console) -> Tuning:
    """Switch to the stored tuning: first the similarity, which closes each index for a second, then tuning and
    pipelines.
    """
    began = time.perf_counter()
    wanted = tunings.kept(store.cluster, version)
    rendered = store.rendered_for(wanted)
    for index in _indexes_to_change(store, wanted.bm25):
        console.print(f"closing {index} for a moment, to give it k1 {wanted.bm25.k1:g} and b {wanted.bm25.b:g}")
        set_similarity(store.cluster, index, wanted.bm25)
    tunings.activate(store.cluster, version)
    _apply(store, rendered, console)
    connection = RedisConnection(store.settings.redis)
    IndexGeneration(connection).advance_all()  # answers made by the previous tuning are outdated
    connection.close()
    console.print(f"tuning {version} is in force ({time.perf_counter() - began:.1f} s)", style="bold")
    return wanted


def _apply(store: Store, rendered: RenderedResources, console: Console) -> None:
    for change in templates.apply(store.cluster, store.capabilities, rendered):
        if change.action != "unchanged":
            console.print(f"{change.action} {change.kind} {change.name}", markup=False)


def _indexes_to_change(store: Store, bm25: Bm25) -> list[str]:
    """Return the indexes behind our aliases that have other parameters, or that a killed run left closed."""
    params = {"flat_settings": "true", "expand_wildcards": "open,closed"}
    live = templates.LiveIndexes(store.cluster.request("GET", f"/{READ_ALIAS}*", params=params))
    names = dict.fromkeys([*live.indexes, *live.write_indexes])
    return [name for name in names if not has_similarity(live.all_indexes[name]["settings"], bm25)]
