"""Calls on single documents: write, change readers, delete."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from app.access import AccessChange
from app.config import Settings
from app.errors import DocumentRejected, NotFound, OutcomeUnknown, WriteConflict
from app.ingest import change
from app.ingest.change import StoredDocument
from app.ingest.cutting import Encoder, embed, recipe, to_passages, token_codec, version_of
from app.ingest.protocol import Steps
from app.ingest.put import Put, has_content, put_documents
from app.ingest.targets import find_targets
from app.passage import Document, Passage
from app.store.client import Cluster
from app.store.filters import Scope

_PATIENCE_S = 5.0
"""Seconds that each step waits for an unavailable cluster."""
_SLICE = 128
"""Passages embedded at once."""


def ingest_document(
    document: Document,
    *,
    settings: Settings,
    cluster: Cluster,
    encoder: Encoder,
    scope: Scope | None = None,
    refresh: bool = True,
) -> StoredDocument:
    """Ingest one document, replacing an older version; searchable on return if `refresh`.

    `scope` is the writer's (None: the operator of the document's tenant). A document that it can't see stays unchanged
    beside the new one, and the result is the same as without it.

    Raises:
        DocumentRejected: ``empty``, or ``refused`` with OpenSearch's reason.
        WriteConflict: another write interfered; this one had no effect.
        OutcomeUnknown: OpenSearch did not say whether it stored the document.
        StoreUnavailable, StoreError, EncoderError: OpenSearch has 5 s to become available.
    """
    steps, scope = Steps(cluster, patience_s=_PATIENCE_S), scope or Scope(document.tenant)
    content_hash = version_of(document, recipe(settings, encoder))
    head = find_targets(steps, scope, [document.document_id])[document.document_id].head
    passages: Sequence[Passage] = ()
    if not has_content(head, content_hash):
        passages = to_passages(document, settings=settings, encoder=encoder, written=datetime.now(UTC))
        codec = token_codec(settings, encoder)
        slices = range(0, len(passages), _SLICE)
        passages = [item for start in slices for item in embed(passages[start : start + _SLICE], encoder, codec)]
    put = Put(document.document_id, document.source_id, content_hash, document.access, passages, head)
    (result,) = put_documents(steps, scope, [put])
    if result.status == "refused":
        raise DocumentRejected(f"OpenSearch rejected it: {result.reason}", reason="refused")
    if result.status == "overtaken":
        raise WriteConflict(result.reason)
    if result.status == "unknown":
        raise OutcomeUnknown(result.reason)
    if refresh and result.status != "updated":
        steps.refresh()
    return StoredDocument(result.passages, result.status, result.revoking, result.access)


def change_readers(cluster: Cluster, scope: Scope, document_id: str, access: AccessChange) -> StoredDocument:
    """Change the readers of a document; effective on return. Nothing is parsed, chunked or embedded again.

    Args:
        scope: the caller's scope: it changes only what it can read, and may lose access.
        access: the lists to change, validated by `passage.readers`.

    Raises:
        NotFound: the scope sees no such document.
        WriteConflict, OutcomeUnknown, StoreUnavailable, StoreError: as `ingest_document`.
    """
    return change.change_readers(Steps(cluster, patience_s=_PATIENCE_S), scope, document_id, access)


def delete_document(cluster: Cluster, scope: Scope, document_id: str) -> StoredDocument:
    """Delete a document, as far as the scope sees it; on return searches no longer find it.

    Raises:
        NotFound: the scope sees no such document.
        WriteConflict, OutcomeUnknown, StoreUnavailable, StoreError: as `ingest_document`.
    """
    deleted = change.delete_documents(Steps(cluster, patience_s=_PATIENCE_S), scope, [document_id])
    if not deleted:
        raise NotFound(f"there is no document {document_id!r}")
    passages = sum(head.version.passages for head in deleted if head.version is not None)
    return StoredDocument(passages, "updated", revoking=True)
