"""k1 and b of an index: a static setting, so that the index is closed during the change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.errors import StoreError
from app.store.client import Cluster
from app.tuning import Bm25

SIMILARITY = "index.similarity.braid_bm25"
"""Prefix of the settings of an index's similarity."""
_CLOSED = "index.verified_before_close"


def has_similarity(settings: Mapping[str, Any], bm25: Bm25) -> bool:
    """Return whether an index with these (flat) settings has the parameters and is open; a killed run may have left it
    closed.
    """
    standard = Bm25()
    found = float(settings.get(f"{SIMILARITY}.k1", standard.k1)), float(settings.get(f"{SIMILARITY}.b", standard.b))
    return found == (bm25.k1, bm25.b) and settings.get(_CLOSED) != "true"


def set_similarity(cluster: Cluster, index: str, bm25: Bm25) -> None:
    """Set the BM25 parameters of an index; does nothing if it has them.

    The index is closed for about a second; it can't be searched meanwhile.

    Raises:
        StoreError: OpenSearch rejected the change; the index is opened again in any case.
    """
    answer = cluster.request("GET", f"/{index}/_settings", params={"flat_settings": "true"})
    settings = answer[index]["settings"]
    if has_similarity(settings, bm25):
        return
    kind = settings.get(f"{SIMILARITY}.type", "BM25")  # an operator may have chosen LegacyBM25
    cluster.request("POST", f"/{index}/_close", timeout_s=60)
    try:
        cluster.request("PUT", f"/{index}/_settings", body={SIMILARITY: {"type": kind, "k1": bm25.k1, "b": bm25.b}})
    finally:
        cluster.request("POST", f"/{index}/_open", params={"wait_for_active_shards": "1"}, timeout_s=60)
    health = cluster.request(
        "GET", f"/_cluster/health/{index}", params={"wait_for_status": "yellow", "timeout": "30s"}, timeout_s=40
    )
    if health.get("timed_out"):
        raise StoreError(
            f"index {index} did not open within 30 s after the change of its similarity: check the cluster's health"
        )
