"""k1 and b of an index: a static setting, so that the index is closed while it changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.errors import StoreError
from app.store.client import Cluster
from app.tuning import Bm25

_PREFIX = "index.similarity.braid_bm25"
_CLOSED = "index.verified_before_close"


def has_similarity(settings: Mapping[str, Any], bm25: Bm25) -> bool:
    """Whether an index with these (flat) settings has the parameters, and is open: a run that was killed may have left
    it closed."""
    standard = Bm25()
    found = float(settings.get(f"{_PREFIX}.k1", standard.k1)), float(settings.get(f"{_PREFIX}.b", standard.b))
    return found == (bm25.k1, bm25.b) and settings.get(_CLOSED) != "true"


def set_similarity(cluster: Cluster, index: str, bm25: Bm25) -> None:
    """Give an index other BM25 parameters; nothing is done where it has them.

    It is closed for about a second for it: nothing can be searched meanwhile.

    Raises:
        StoreError: refused; the index is open again in any case.
    """
    answer = cluster.request("GET", f"/{index}/_settings", params={"flat_settings": "true"})
    if has_similarity(answer[index]["settings"], bm25):
        return
    cluster.request("POST", f"/{index}/_close", timeout_s=60)
    try:
        cluster.request("PUT", f"/{index}/_settings", body={_PREFIX: {"type": "BM25", "k1": bm25.k1, "b": bm25.b}})
    finally:
        cluster.request("POST", f"/{index}/_open", params={"wait_for_active_shards": "1"}, timeout_s=60)
    health = cluster.request(
        "GET", f"/_cluster/health/{index}", params={"wait_for_status": "yellow", "timeout": "30s"}, timeout_s=40
    )
    if health.get("timed_out"):
        raise StoreError(f"index {index} did not come back within 30 s after its similarity was changed")
