"""Heads for passages that a test writes past Braid: without one, no service shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from app.access import Access
from app.store.client import Cluster
from app.store.heads import Head, Version, read_heads, write_heads


def put_in_force(
    cluster: Cluster, document_ids: Iterable[str], token: str, *, tenant: str = "default", access: Access | None = None
) -> None:
    """Let heads name the version `token` of each document, and who may read it (None: everybody of the tenant)."""
    version = Version(token, 1, cluster.read_alias)
    for document_id in document_ids:
        change_head(cluster, document_id, tenant=tenant, version=version, access=access or Access())


def change_head(cluster: Cluster, document_id: str, *, tenant: str = "default", twin: str = "", **changed: Any) -> Head:
    """Write a head with fields changed, and nothing else; as it was before."""
    (head,) = read_heads(cluster, [Head(tenant, document_id, twin)]).values()
    (written,) = write_heads(cluster, [replace(head, **changed)])
    assert written.outcome == "stored", written
    return head


def copy_heads(source: Cluster, target: Cluster, document_ids: Iterable[str]) -> None:
    """Heads of passages that were copied with their ids into the index of `target`."""
    for head in read_heads(source, [Head("default", document_id) for document_id in document_ids]).values():
        if head.version is not None:
            put_in_force(target, [head.document_id], head.version.token, access=head.access)
