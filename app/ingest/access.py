"""Other readers for a document that is there: nothing is parsed, cut or embedded again.

The passages are written as a new version, vectors and all, in the order of every replacement (`Writer`), and the old
version is removed: nobody ever sees a document with two access lists, none that is half of each, and who is shut out
is so when the call returns. The new version's content hash is what ingesting the same content with the new list gives,
so the next ingest of the unchanged source finds it unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from app.access import ACCESS_FIELDS, Access, AccessChange
from app.errors import NotFound, StoreError, StoreUnavailable
from app.ingest.run import OVERTAKEN, StoredDocument
from app.ingest.writer import Writer
from app.passage import Passage, passage_id
from app.store.client import Cluster
from app.store.documents import count_version, delete_incomplete, newest_version, read_version
from app.store.filters import Scope

_SLICE = 100
"""Passages with their vectors that are held and written at once."""


def change_readers(cluster: Cluster, scope: Scope, document_id: str, change: AccessChange) -> StoredDocument:
    """Replace the lists of readers that `change` names; in force on return.

    Args:
        cluster: where it is.
        scope: of the caller, who changes only what it may read; it need not be able to read it afterwards. Where it
            sees several documents of that id, the newest takes their place, as in every replacement.
        document_id: which.
        change: lists checked by `passage.readers`; an empty `acl`: the operator and admins only; an empty restriction
            is open.

    Raises:
        NotFound: there is none that the scope may see.
        StoreUnavailable, StoreError: as `ingest_document`; what was done by then is finished by the same call again.
    """
    writer = Writer(cluster, scope, patience_s=5.0)
    writer.refresh()
    versions = writer.versions([document_id])
    found = newest_version(cluster, scope, document_id)
    if found is None:
        raise NotFound(f"there is no document {document_id!r}")
    access = found[1].changed(change)
    version = f"{found[0].partition('-')[0]}-{access.digest()}"
    left = any(access.narrows(readers) for readers in versions.get(document_id, {}).values())
    if version == found[0]:
        writer.keep_only({document_id: version})
        return StoredDocument(count_version(cluster, scope, document_id, version), "unchanged", left, access)
    passages = 0
    expected = count_version(cluster, scope, document_id, found[0])
    try:
        for slice_ in _slices(_renamed(read_version(cluster, scope, document_id, found[0]), version, access, expected)):
            passages += len(slice_)
            written = writer.write(slice_, versions)
            if reason := written.failed.get(document_id):
                raise StoreError(f"OpenSearch refused the document with its new readers: {reason}")
            if written.overtaken:
                raise StoreUnavailable(OVERTAKEN)
    except StoreError:
        delete_incomplete(cluster, scope.tenant, document_id, version)
        raise
    return StoredDocument(passages, "updated", left, access)


def _renamed(passages: Iterator[Passage], version: str, access: Access, expected: int) -> Iterator[Passage]:
    """The passages as those of the new version, position 0 last. Raises StoreUnavailable where some are gone."""
    head: Passage | None = None
    seen = 0
    for passage in passages:
        seen += 1
        key = passage_id(passage.tenant, passage.document_id, version, passage.position)
        lists = {name: getattr(access, name) for name in ACCESS_FIELDS}
        renamed = replace(passage, id=key, content_hash=version, **lists)
        if passage.position == 0:
            head = renamed
        else:
            yield renamed
    if head is None or seen != expected:
        raise StoreUnavailable(OVERTAKEN)
    yield head


def _slices(passages: Iterator[Passage]) -> Iterator[list[Passage]]:
    slice_: list[Passage] = []
    for passage in passages:
        slice_.append(passage)
        if len(slice_) == _SLICE:
            yield slice_
            slice_ = []
    if slice_:
        yield slice_
