"""Hidden indexes of ours that are made when their first record is written."""

from __future__ import annotations

from typing import Any

from app.assets import asset_folder
from app.store.client import Cluster, StoreRequestError
from app.store.rendering import read_file


def ensure_index(cluster: Cluster, template: str, name: str | None = None) -> None:
    """Make an index as its template says, so that it is right even where none was ever applied.

    Args:
        cluster: where.
        template: its name.
        name: of the index; None: the template's.

    Raises:
        StoreError: OpenSearch is away or refused.
    """
    body = read_file(asset_folder("mappings") / "index_templates" / f"{template}.json")["template"]
    try:
        cluster.request("PUT", f"/{name or template}", body=body)
    except StoreRequestError as error:
        if error.error_type != "resource_already_exists_exception":
            raise


def get_record(cluster: Cluster, index: str, record_id: str, *, timeout_s: float) -> dict[str, Any] | None:
    """A record as OpenSearch answers it (`_source`, `_seq_no`, ...), or None; realtime.

    Raises:
        StoreUnavailable: OpenSearch is away, or did not answer in time.
        StoreError: it answered with a failure.
    """
    try:
        found: dict[str, Any] = cluster.request("GET", f"/{index}/_doc/{record_id}", timeout_s=timeout_s)
    except StoreRequestError as error:
        if error.status_code == 404:
            return None
        raise
    return found
