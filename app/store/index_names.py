"""Names of existing physical indexes: writes use them, so that none reaches an index that replaced another.

OpenSearch creates an index for a write to a missing one, so nothing is sent to a deleted index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from app.errors import StoreNotReady
from app.store.client import Cluster, find

CACHE_S = 5.0


def write_index(cluster: Cluster) -> str:
    """Return the physical index behind the write alias, at most five seconds old.

    Raises:
        StoreNotReady: there is none, or more than one, or searches do not include it: its content would be invisible to
            them, and so would the version that it replaces.
        StoreUnavailable, StoreError.
    """
    (found,) = _cached(cluster, cluster.write_alias, lambda: _write_index(cluster))
    return found


def existing(cluster: Cluster, names: Collection[str]) -> frozenset[str]:
    """Return those of the indexes that exist, at most five seconds old. Raises StoreError."""
    listed = ",".join(sorted(names))
    return _cached(cluster, listed, lambda: _existing(cluster, listed)) if listed else frozenset()


def _write_index(cluster: Cluster) -> frozenset[str]:
    aliases = ",".join(dict.fromkeys((cluster.write_alias, cluster.read_alias)))
    found = find(cluster, f"/_alias/{aliases}", params={"local": "true"}) or {}
    behind = {name: item["aliases"] for name, item in found.items() if cluster.write_alias in item["aliases"]}
    marked = {name: named[cluster.write_alias].get("is_write_index") for name, named in behind.items()}
    chosen = [name for name, is_write in marked.items() if is_write] or list(marked)
    if len(chosen) != 1:
        raise StoreNotReady(
            f"alias {cluster.write_alias} names {len(chosen)} indexes to write to, not one: run `braid templates apply`"
        )
    if cluster.read_alias not in behind[chosen[0]]:
        raise StoreNotReady(
            f"alias {cluster.write_alias} points to index {chosen[0]}, which searches do not include (for example "
            f"after a rollover): add it to the alias {cluster.read_alias}, too; `braid templates apply` does"
        )
    return frozenset(chosen)


def _existing(cluster: Cluster, listed: str) -> frozenset[str]:
    params = {"ignore_unavailable": "true", "local": "true"}
    return frozenset(cluster.request("GET", f"/{listed}/_alias", params=params))


def _cached(cluster: Cluster, key: str, ask: Callable[[], frozenset[str]]) -> frozenset[str]:
    asked_at, found = cluster.index_names.get(key, (float("-inf"), frozenset()))
    if time.monotonic() - asked_at > CACHE_S:
        asked_at, found = time.monotonic(), ask()
        cluster.index_names[key] = asked_at, found
    return found
