"""The records of jobs in OpenSearch: every request that writes or reads them. What they mean: `serving.jobs`.

One hidden index, one document a job, whose `_id` is the job's: a look-up is one realtime GET. A record has one writer,
the process that has the job, so the newest write is the right one.
"""

from __future__ import annotations

from typing import Any

from app.store.client import Cluster
from app.store.hidden import ensure_index, get_record
from app.store.rendering import JOBS_TEMPLATE

INDEX = "braid-jobs"
_TIMEOUT_S = 2.0
_PURGE_TIMEOUT_S = 30.0


def get(cluster: Cluster, job_id: str) -> dict[str, Any] | None:
    """The record of a job, or None.

    Args:
        cluster: of the service.
        job_id: hexadecimal digits.

    Raises:
        StoreUnavailable: OpenSearch is away, or did not answer within two seconds.
        StoreError: it answered with a failure.
    """
    found = get_record(cluster, INDEX, job_id, timeout_s=_TIMEOUT_S)
    source: dict[str, Any] | None = found["_source"] if found is not None else None
    return source


def create_index(cluster: Cluster) -> None:
    """Make the index where there is none. Raises StoreError."""
    ensure_index(cluster, JOBS_TEMPLATE)


def put(cluster: Cluster, record: dict[str, Any]) -> None:
    """Write the record of a job, in the place of an earlier one. Raises StoreError, after two seconds at most."""
    cluster.request("PUT", f"/{INDEX}/_doc/{record['id']}", body=record, timeout_s=_TIMEOUT_S)


def purge(cluster: Cluster, days: int) -> None:
    """Delete the records of jobs that were made more than `days` days ago. Raises StoreError."""
    cluster.request(
        "POST",
        f"/{INDEX}/_delete_by_query",
        params={"conflicts": "proceed"},
        body={"query": {"range": {"created_at": {"lt": f"now-{days}d"}}}},
        timeout_s=_PURGE_TIMEOUT_S,
    )
