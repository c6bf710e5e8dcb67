"""Which physical indexes there are: writes name them, so that none reaches an index that took another's place.

OpenSearch makes an index for a write that names one which is not there, so nothing is sent to one that is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from app.errors import StoreNotReady
from app.store.client import Cluster, StoreRequestError

_BELIEVED_S = 5.0


def write_index(cluster: Cluster) -> str:
    """The physical index behind the write alias, as it was five seconds ago or later.

    Raises:
        StoreNotReady: there is none, or more than one, or searches don't see it: what is written there would be lost to
            them, and so would the version that it replaces.
        StoreUnavailable, StoreError.
    """
    (found,) = _believed(cluster, cluster.write_alias, lambda: _write_index(cluster))
    return found


def existing(cluster: Cluster, names: Collection[str]) -> frozenset[str]:
    """Those of the indexes that are there, as it was five seconds ago or later. Raises StoreError."""
    listed = ",".join(sorted(names))
    return _believed(cluster, listed, lambda: _existing(cluster, listed)) if listed else frozenset()


def _write_index(cluster: Cluster) -> frozenset[str]:
    aliases = ",".join(dict.fromkeys((cluster.write_alias, cluster.read_alias)))
    try:
        found = cluster.request("GET", f"/_alias/{aliases}", params={"local": "true"})
    except StoreRequestError as error:
        if error.status_code != 404:
            raise
        found = {}
    behind = {name: item["aliases"] for name, item in found.items() if cluster.write_alias in item["aliases"]}
    marked = {name: named[cluster.write_alias].get("is_write_index") for name, named in behind.items()}
    chosen = [name for name, is_write in marked.items() if is_write] or list(marked)
    if len(chosen) != 1:
        raise StoreNotReady(
            f"alias {cluster.write_alias} names {len(chosen)} indexes to write to, not one: run `braid templates apply`"
        )
    if cluster.read_alias not in behind[chosen[0]]:
        raise StoreNotReady(
            f"alias {cluster.write_alias} leads to index {chosen[0]}, which searches don't see: add it to the alias "
            f"{cluster.read_alias}, too (after a rollover, say)"
        )
    return frozenset(chosen)


def _existing(cluster: Cluster, listed: str) -> frozenset[str]:
    params = {"ignore_unavailable": "true", "local": "true"}
    return frozenset(cluster.request("GET", f"/{listed}/_alias", params=params))


def _believed(cluster: Cluster, key: str, ask: Callable[[], frozenset[str]]) -> frozenset[str]:
    asked_at, found = cluster.index_names.get(key, (float("-inf"), frozenset()))
    if time.monotonic() - asked_at > _BELIEVED_S:
        asked_at, found = time.monotonic(), ask()
        cluster.index_names[key] = asked_at, found
    return found
