"""Changes of readers, and deletions: each takes effect with one write of the head. See `ingest.protocol`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from app.access import Access, AccessChange
from app.errors import NotFound, OutcomeUnknown, WriteConflict
from app.ingest.protocol import CONFIRMATIONS, Steps, fenced, make_nonce
from app.ingest.targets import find_targets
from app.store.filters import Scope
from app.store.heads import Head

_UNKNOWN = "OpenSearch did not say whether it stored the change; repeating the call is safe"
_OVERTAKEN = "other writers keep changing the document: send the change again"
_CONFLICTS = 200

Edit = Callable[[Head, str], Head | None]
"""Function from the current head and the name of the change to the new head; None: there is nothing to change."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """Result of a call on one document. `revoking` is True if a reader loses access. `access` is the current one."""

    passages: int
    status: Literal["created", "updated", "unchanged"]
    revoking: bool = False
    access: Access = field(default_factory=Access)


@dataclass(slots=True)
class _Change:
    head: Head
    nonce: str = field(default_factory=make_nonce)
    tried_rev: int | None = None
    """Revision that an unacknowledged write was meant to replace."""
    before: Head | None = None
    ended: bool = False
    unknown: bool = False


def change_readers(steps: Steps, scope: Scope, document_id: str, access: AccessChange) -> StoredDocument:
    """Change the readers of a document; effective on return, for every document that the caller sees under that id.

    The caller may lose access to it.

    Raises:
        NotFound: no document with this id is visible to the caller.
        WriteConflict, OutcomeUnknown, StoreUnavailable, StoreError.
    """
    live = find_targets(steps, scope, [document_id])[document_id].live
    done = change_access(steps, live, access, principals=scope.principals) if live else None
    if done is None:
        raise NotFound(f"there is no document {document_id!r}")
    return done


def change_access(
    steps: Steps,
    heads: Sequence[Head],
    access: AccessChange,
    *,
    content_hash: str | None = None,
    principals: frozenset[str] | None = None,
) -> StoredDocument | None:
    """Change the readers of documents that were just read. None: all of them have been deleted.

    Args:
        heads: live heads, readable by the caller at the time of reading.
        content_hash: change the readers only if the document still has this content.
        principals: the caller's principals, who must still be able to read the document.
    """
    untouched: dict[str, Head] = {}

    def edit(head: Head, nonce: str) -> Head | None:
        if head.version is None or not head.readable(principals) or content_hash not in (None, head.content_hash):
            return None
        wanted = (head.access or Access()).changed(access)
        if wanted.is_equivalent(head.access or Access()) and not head.open:
            untouched[head.key] = head
            return None
        return replace(fenced(head), access=wanted, access_rev=head.rev + 1, unsettled=True, by=nonce)

    changes = _change(steps, heads, edit)
    done = [item for item in changes if item.before is not None]
    if not done and not untouched:
        return None
    shown = next(item.head for item in changes if item.before is not None or item.head.key in untouched)
    return StoredDocument(
        shown.version.passages if shown.version is not None else 0,
        "updated" if done else "unchanged",
        revoking=any(
            (item.head.access or Access()).narrows(item.before.access or Access())
            for item in done
            if item.before is not None
        ),
        access=shown.access or Access(),
    )


def delete_documents(
    steps: Steps, scope: Scope, document_ids: Sequence[str], *, source_id: str | None = None
) -> list[Head]:
    """Delete documents, as far as the caller sees them; on return searches no longer find them.

    Args:
        source_id: delete only documents that belong to this source now.

    Returns:
        The heads before the deletion; empty if there was no such document.

    Raises:
        WriteConflict, OutcomeUnknown, StoreUnavailable, StoreError: documents deleted before the error stay deleted.
    """
    targets = find_targets(steps, scope, document_ids)
    heads = [head for target in targets.values() for head in target.live]

    def edit(head: Head, nonce: str) -> Head | None:
        if head.version is None or not head.readable(scope.principals) or source_id not in (None, head.source_id):
            return None
        gone = fenced(head)
        return replace(gone, version=None, garbage=(*gone.garbage, head.version), unsettled=False, by=nonce)

    return [item.before for item in _change(steps, heads, edit) if item.before is not None]


def _change(steps: Steps, heads: Sequence[Head], edit: Edit) -> list[_Change]:
    """Write each head as `edit` says, then finish and clear. Changed ones have `before` set."""
    changes = [_Change(head) for head in heads]
    todo = changes
    until = time.monotonic() + steps.patience_s
    for _ in range(_CONFLICTS):
        wanted = [(item, edited) for item in todo if (edited := _next_head(steps, item, edit)) is not None]
        written = steps.write("commit", [edited for _, edited in wanted])
        todo = []
        for (item, _), outcome in zip(wanted, written, strict=True):
            if outcome.head is not None:
                item.before, item.head, item.ended = item.head, outcome.head, True
                continue
            if outcome.outcome == "unknown":
                item.tried_rev, item.before = item.head.rev, item.head
            todo.append(item)
        if not todo:
            break
        if time.monotonic() > until and all(item.tried_rev is not None for item in todo):
            break
        found = steps.read(item.head for item in todo)
        for item in todo:
            item.head = found[item.head.key]
    finished = [item.head for item in changes if item.ended and item.before is not None]
    steps.finish(finished)
    steps.clear(finished)
    if any(item.unknown or (not item.ended and item.tried_rev is not None) for item in changes):
        raise OutcomeUnknown(_UNKNOWN)
    if not all(item.ended for item in changes):
        raise WriteConflict(_OVERTAKEN)
    return changes


def _next_head(steps: Steps, item: _Change, edit: Edit) -> Head | None:
    """Return the head to write now; None if the change has ended."""
    for _ in range(CONFIRMATIONS):
        if item.tried_rev is None or item.head.by != item.nonce:
            break
        outcome = steps.confirm(item.head)  # it was stored, but not acknowledged
        if outcome.head is not None:
            item.head, item.ended = outcome.head, True
            return None
        item.head = steps.read([item.head])[item.head.key]
    if item.tried_rev is not None and item.head.rev != item.tried_rev:
        item.ended = item.unknown = True
        item.before = None
        return None
    edited = edit(item.head, item.nonce)
    if edited is None:
        item.ended, item.before = True, None
    return edited
