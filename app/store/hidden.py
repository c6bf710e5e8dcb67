"""Hidden indexes of ours that are made when their first record is written."""

from __future__ import annotations

from app.assets import asset_folder
from app.store.client import Cluster, StoreRequestError
from app.store.rendering import read_file


def ensure_index(cluster: Cluster, name: str) -> None:
    """Make the index `name` as the template of that name says, so that it is right even where none was ever applied.

    Raises:
        StoreError: OpenSearch is away or refused.
    """
    body = read_file(asset_folder("mappings") / "index_templates" / f"{name}.json")["template"]
    try:
        cluster.request("PUT", f"/{name}", body=body)
    except StoreRequestError as error:
        if error.error_type != "resource_already_exists_exception":
            raise
