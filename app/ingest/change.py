"""Changes of readers, and deletions: both take effect with one write of the head. See `ingest.protocol`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from app.access import Access, AccessChange
from app.errors import NotFound, OutcomeUnknown, Overtaken
from app.ingest.protocol import CONFIRMATIONS, Steps, fenced, make_nonce
from app.ingest.targets import find_targets
from app.store.filters import Scope
from app.store.heads import Head

_UNKNOWN = "OpenSearch did not say whether it stored the change; the same call again is safe"
_OVERTAKEN = "the document is being written by others over and over: send the change again"
_CONFLICTS = 200

Edit = Callable[[Head, str], Head | None]
"""The head as it is to be, given what it is and the name of the change; None: there is nothing to change."""


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """What a change did. `revoking`: somebody who could read the document before can't any more."""

    passages: int
    changed: bool
    revoking: bool = False
    access: Access = field(default_factory=Access)


@dataclass(slots=True)
class _Change:
    head: Head
    nonce: str = field(default_factory=make_nonce)
    tried_rev: int | None = None
    """The revision that a write without an answer was to replace."""
    before: Head | None = None
    ended: bool = False
    unknown: bool = False


def change_readers(steps: Steps, scope: Scope, document_id: str, access: AccessChange) -> ChangeResult:
    """Give a document other readers; in force on return, for all that the caller sees under that id.

    The caller need not be able to read it afterwards.

    Raises:
        NotFound: there is none that the caller may see.
        Overtaken, OutcomeUnknown, StoreUnavailable, StoreError.
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
) -> ChangeResult | None:
    """Change the readers of documents that were just read. None: none of them is there any more.

    Args:
        steps: of the caller.
        heads: in force and readable by the caller, when they were read.
        access: the lists that change.
        content_hash: only while the document has this content.
        principals: of the caller, who must still be able to read.
    """
    untouched: dict[str, Head] = {}

    def edit(head: Head, nonce: str) -> Head | None:
        if head.version is None or not head.readable(principals) or content_hash not in (None, head.content_hash):
            return None
        wanted = (head.access or Access()).changed(access)
        if wanted.same(head.access or Access()) and not head.open:
            untouched[head.key] = head
            return None
        return replace(fenced(head), access=wanted, access_rev=head.rev + 1, unsettled=True, by=nonce)

    changes = _change(steps, heads, edit)
    done = [item for item in changes if item.before is not None]
    if not done and not untouched:
        return None
    shown = next(item.head for item in changes if item.before is not None or item.head.key in untouched)
    return ChangeResult(
        shown.version.passages if shown.version is not None else 0,
        changed=bool(done),
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
    """Delete documents, as far as the caller sees them; they can't be found any more on return.

    Args:
        steps: of the caller.
        scope: of the caller.
        document_ids: which.
        source_id: only those that belong to this source now.

    Returns:
        What they were; empty: there was none of them.

    Raises:
        Overtaken, OutcomeUnknown, StoreUnavailable, StoreError: what was deleted by then stays deleted.
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
    """Write each head as `edit` says, then finish and clear. `before` is set for those that were changed."""
    changes = [_Change(head) for head in heads]
    todo = changes
    until = time.monotonic() + steps.patience_s
    for _ in range(_CONFLICTS):
        wanted = [(item, edited) for item in todo if (edited := _edited(steps, item, edit)) is not None]
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
        raise Overtaken(_OVERTAKEN)
    return changes


def _edited(steps: Steps, item: _Change, edit: Edit) -> Head | None:
    """What to write now; None where the change has ended, one way or the other."""
    for _ in range(CONFIRMATIONS):
        if item.tried_rev is None or item.head.by != item.nonce:
            break
        outcome = steps.confirm(item.head)  # it was stored, without an answer
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
