"""Job records in OpenSearch: every request that writes or reads them. `serving.jobs` defines their meaning.

There is one hidden index with one document per job, whose `_id` is the job's: a look-up is one real-time GET. A record
has one writer, the process with the job, so that the newest write is the right one.
"""

from __future__ import annotations

from typing import Any

from app.store.client import Cluster, find
from app.store.hidden import ensure_index
from app.store.rendering import JOBS_TEMPLATE

INDEX = "braid-jobs"
_TIMEOUT_S = 2.0
_PURGE_TIMEOUT_S = 30.0


def get(cluster: Cluster, job_id: str) -> dict[str, Any] | None:
    """Return the record of a job, or None.

    Raises:
        StoreUnavailable: OpenSearch is unavailable, or did not answer within two seconds.
        StoreError: it answered with a failure.
    """
    found = find(cluster, f"/{INDEX}/_doc/{job_id}", timeout_s=_TIMEOUT_S)
    source: dict[str, Any] | None = found and found["_source"]
    return source


def create_index(cluster: Cluster) -> None:
    """Create the index if it is missing. Raises StoreError."""
    ensure_index(cluster, JOBS_TEMPLATE)


def put(cluster: Cluster, record: dict[str, Any]) -> None:
    """Write the record of a job, replacing an earlier one. Raises StoreError, after two seconds at most."""
    cluster.request("PUT", f"/{INDEX}/_doc/{record['id']}", body=record, timeout_s=_TIMEOUT_S)


def purge(cluster: Cluster, days: int) -> None:
    """Delete the records of jobs created more than `days` days ago. Raises StoreError."""
    cluster.request(
        "POST",
        f"/{INDEX}/_delete_by_query",
        params={"conflicts": "proceed"},
        body={"query": {"range": {"created_at": {"lt": f"now-{days}d"}}}},
        timeout_s=_PURGE_TIMEOUT_S,
    )
