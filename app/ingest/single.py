"""One document: written, given other readers, deleted; what a call of the service does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from app.access import Access, AccessChange
from app.config import Settings
from app.errors import DocumentRejected, NotFound, OutcomeUnknown, Overtaken
from app.ingest import change
from app.ingest.documents import Encoder, embed, recipe, to_passages, token_codec, version_of
from app.ingest.protocol import Steps
from app.ingest.put import Put, has_content, put_documents
from app.ingest.targets import find_targets
from app.passage import Document, Passage
from app.store.client import Cluster
from app.store.filters import Scope

_PATIENCE_S = 5.0
"""How long each step waits for a cluster that is away."""
_SLICE = 128
"""Passages embedded at once."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """What became of one document. `revoking`: somebody who could read it before can't any more. `access` is in force
    now."""

    passages: int
    status: Literal["created", "updated", "unchanged"]
    revoking: bool = False
    access: Access = field(default_factory=Access)


def ingest_document(
    document: Document,
    *,
    settings: Settings,
    cluster: Cluster,
    encoder: Encoder,
    scope: Scope | None = None,
    refresh: bool = True,
) -> StoredDocument:
    """Bring one document into the store, replacing an older version; searchable on return if `refresh`.

    `scope` is the writer's (None: the operator of the document's tenant): a document that it may not see stays as it
    is, beside the new one, and the answer is the same as if it were not there.

    Raises:
        DocumentRejected: ``empty``, or ``refused`` with OpenSearch's reason.
        Overtaken: another write came in between; this one took no effect.
        OutcomeUnknown: OpenSearch did not say whether it stored the document.
        StoreUnavailable, StoreError, EncoderError: OpenSearch is given 5 s to come back.
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
        raise DocumentRejected(f"OpenSearch refused it: {result.reason}", reason="refused")
    if result.status == "overtaken":
        raise Overtaken(result.reason)
    if result.status == "unknown":
        raise OutcomeUnknown(result.reason)
    if refresh and result.status != "updated":
        steps.refresh()
    return StoredDocument(result.passages, result.status, result.revoking, result.access)


def change_readers(cluster: Cluster, scope: Scope, document_id: str, access: AccessChange) -> StoredDocument:
    """Give a document other readers; in force on return. Nothing is parsed, cut or embedded again.

    Args:
        cluster: where it is.
        scope: of the caller, who changes only what it may read; it need not be able to read it afterwards.
        document_id: which.
        access: the lists that change, checked by `passage.readers`.

    Raises:
        NotFound: there is none that the scope may see.
        Overtaken, OutcomeUnknown, StoreUnavailable, StoreError: as `ingest_document`.
    """
    done = change.change_readers(Steps(cluster, patience_s=_PATIENCE_S), scope, document_id, access)
    return StoredDocument(done.passages, "updated" if done.changed else "unchanged", done.revoking, done.access)


def delete_document(cluster: Cluster, scope: Scope, document_id: str) -> StoredDocument:
    """Delete a document, as far as the scope sees it; it can't be found any more on return.

    Raises:
        NotFound: there is none that the scope may see.
        Overtaken, OutcomeUnknown, StoreUnavailable, StoreError: as `ingest_document`.
    """
    deleted = change.delete_documents(Steps(cluster, patience_s=_PATIENCE_S), scope, [document_id])
    if not deleted:
        raise NotFound(f"there is no document {document_id!r}")
    passages = sum(head.version.passages for head in deleted if head.version is not None)
    return StoredDocument(passages, "updated", revoking=True)
