"""API key records in OpenSearch: every request that writes or reads them. `gateway.keys` defines their meaning.

There is one hidden index with one document per key; its `_id` is the key's id, so that a look-up is one real-time GET,
which sees the latest write without a refresh. If the index is missing, there are no keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.errors import InvalidInput
from app.store.client import Cluster, StoreRequestError, find
from app.store.hidden import ensure_index
from app.store.rendering import KEYS_TEMPLATE

INDEX = "braid-keys"
_PAGE = 500
_LOOKUP_TIMEOUT_S = 2.0
_CONFLICT = 409


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A record as stored, and its sequence number, which a change must match."""

    id: str
    source: dict[str, Any]
    seq_no: int
    primary_term: int


def get(cluster: Cluster, key_id: str) -> StoredKey | None:
    """Return the record of a key, or None.

    Raises:
        StoreUnavailable: OpenSearch is unavailable, or did not answer within two seconds.
        StoreError: it answered with a failure.
    """
    found = find(cluster, f"/{INDEX}/_doc/{key_id}", timeout_s=_LOOKUP_TIMEOUT_S)
    if found is None:
        return None
    return StoredKey(key_id, found["_source"], int(found["_seq_no"]), int(found["_primary_term"]))


def create(cluster: Cluster, key_id: str, source: dict[str, Any]) -> None:
    """Write a new record; the index is created if it is missing. Raises StoreError, also if the id is taken."""
    ensure_index(cluster, KEYS_TEMPLATE)
    cluster.request("PUT", f"/{INDEX}/_create/{key_id}", params={"refresh": "true"}, body=source)


def replace(cluster: Cluster, known: StoredKey, source: dict[str, Any]) -> None:
    """Replace the record `known`.

    Raises:
        InvalidInput: another process changed it meanwhile.
        StoreError: OpenSearch is unavailable or rejected the request.
    """
    params = {"refresh": "true", "if_seq_no": str(known.seq_no), "if_primary_term": str(known.primary_term)}
    try:
        cluster.request("PUT", f"/{INDEX}/_doc/{known.id}", params=params, body=source)
    except StoreRequestError as error:
        if error.status_code == _CONFLICT:
            raise InvalidInput(f"key {known.id} was changed meanwhile: repeat the command") from error
        raise


def delete(cluster: Cluster, key_id: str) -> None:
    """Remove a record. Raises StoreError."""
    cluster.request("DELETE", f"/{INDEX}/_doc/{key_id}", params={"refresh": "true"})


def all_records(cluster: Cluster) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all records: pairs of (id, content). Raises StoreError."""
    after: list[Any] | None = None
    while True:
        # not by _id, which clusters may refuse to sort by; a record that was copied by hand has the id of another
        order = [{"id": "asc"}, {"_seq_no": "asc"}]
        body: dict[str, Any] = {"size": _PAGE, "sort": order, "query": {"match_all": {}}}
        if after is not None:
            body["search_after"] = after
        try:
            found = cluster.request(
                "POST", f"/{INDEX}/_search", params={"allow_partial_search_results": "false"}, body=body
            )
        except StoreRequestError as error:
            if error.status_code == 404:
                return
            raise
        hits = found["hits"]["hits"]
        yield from ((hit["_id"], hit["_source"]) for hit in hits)
        if len(hits) < _PAGE:
            return
        after = hits[-1]["sort"]
