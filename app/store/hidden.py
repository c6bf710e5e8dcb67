"""Hidden indexes that are created with their first record."""

from __future__ import annotations

from app.assets import asset_folder
from app.store.client import Cluster, StoreRequestError
from app.store.rendering import read_file


def ensure_index(cluster: Cluster, template: str, name: str | None = None) -> None:
    """Create an index from its template, so that it is correct even if no template was applied.

    Args:
        name: name of the index; None: the template's.

    Raises:
        StoreError: OpenSearch is unavailable or rejected the request.
    """
    body = read_file(asset_folder("mappings") / "index_templates" / f"{template}.json")["template"]
    try:
        cluster.request("PUT", f"/{name or template}", body=body)
    except StoreRequestError as error:
        if error.error_type != "resource_already_exists_exception":
            raise
