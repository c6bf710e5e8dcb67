"""Hidden indexes of ours that are made when their first record is written."""

from __future__ import annotations

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
