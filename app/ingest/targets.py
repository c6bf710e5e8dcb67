"""Choice of the head for a write to a document id.

A document that the caller can't see keeps its secrecy: a write to its id neither destroys nor reveals it. The write
goes to a neighbour, a document of the same id under the writer's own head. The hidden document's head lists its
neighbours, so that those who see all of them can change or delete them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from app.errors import StoreUnavailable, WriteConflict
from app.ingest.protocol import Steps
from app.store.filters import Scope
from app.store.heads import Head, twin_name

_TRIES = 20


@dataclass(frozen=True, slots=True)
class Target:
    """Target of a write, and the documents that the caller sees under the id.

    `head` may not exist yet. It is hidden from the caller only if it is a neighbour that the caller wrote for others:
    writing again replaces it and must not reveal it. `live`: the visible documents, the one that is shown first.
    """

    head: Head
    live: tuple[Head, ...]


def find_targets(steps: Steps, scope: Scope, document_ids: Iterable[str]) -> dict[str, Target]:
    """Return the target of each document id, read now. Raises StoreError."""
    own = steps.read(Head(scope.tenant, document_id) for document_id in document_ids)
    listed = [Head(head.tenant, head.document_id, twin) for head in own.values() for twin in head.twins]
    twins = steps.read(listed) if listed else {}
    found = {}
    for head in own.values():
        heads = [head, *(twins[Head(head.tenant, head.document_id, twin).key] for twin in head.twins)]
        live = tuple(item for item in heads if item.version is not None and item.readable(scope.principals))
        found[head.document_id] = Target(_target(scope, head, heads, live), live)
    return found


def _target(scope: Scope, own: Head, heads: Sequence[Head], live: Sequence[Head]) -> Head:
    if own.readable(scope.principals):
        return own
    if live:
        return live[0]
    twin = twin_name(scope.subject or "\x1f".join(sorted(scope.principals or ())))
    return next((head for head in heads if head.twin == twin), Head(own.tenant, own.document_id, twin))


def enrol(steps: Steps, head: Head) -> None:
    """List a neighbour in the document's own head before its first write.

    Raises:
        WriteConflict: other writers keep changing the document's head.
        StoreError.
    """
    unknown = False
    for _ in range(_TRIES):
        own = steps.read([Head(head.tenant, head.document_id)]).popitem()[1]
        if head.twin in own.twins and not unknown:
            return
        wanted = own if head.twin in own.twins else replace(own, twins=(*own.twins, head.twin))
        outcome = steps.write("confirm" if unknown else "intent", [wanted])[0].outcome
        if outcome == "stored":
            return
        unknown = outcome == "unknown"
    if unknown:
        raise StoreUnavailable(
            "OpenSearch did not say whether it stored the head of a document; send the request again"
        )
    raise WriteConflict("other writers keep changing the document: send it again")
