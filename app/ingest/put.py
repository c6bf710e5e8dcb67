"""Writing of documents: new ones, and new versions of existing ones. See `ingest.protocol`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from app.access import Access, AccessChange
from app.errors import OutcomeUnknown, StoreUnavailable, WriteConflict
from app.ingest.change import change_access
from app.ingest.protocol import CONFIRMATIONS, Steps, make_nonce, with_access
from app.ingest.targets import enrol, find_targets
from app.passage import Passage, passage_id
from app.store.filters import Scope
from app.store.heads import Head, Version, make_token

OVERTAKEN = "another writer changed the document or its readers at the same time: send it again"
UNKNOWN = "OpenSearch did not say whether it stored the document; repeating the call is safe"

_ATTEMPTS = 5
"""Number of retries of a write that another write fenced."""
_CONFLICTS = 200
"""Number of lost races after which a write gives up; each of them was another writer's progress."""
_RENEW_S = 20.0
"""Seconds after which a long staging renews its intent: a sweep takes attempts without progress for 60 s for dead."""


@dataclass(frozen=True, slots=True)
class Put:
    """A chunked and embedded document to write. `access`: the lists that its writer names. Without passages, only its
    readers change.
    """

    document_id: str
    source_id: str
    content_hash: str
    access: AccessChange
    passages: Sequence[Passage]
    head: Head | None = None
    """The target's head from an earlier read; saves a look-up if nobody has written it since."""


@dataclass(frozen=True, slots=True)
class PutResult:
    """Result of writing a document. `revoking` is True if a reader loses access."""

    status: Literal["created", "updated", "unchanged", "refused", "overtaken", "unknown"]
    passages: int = 0
    reason: str = ""
    revoking: bool = False
    access: Access = field(default_factory=Access)


@dataclass(slots=True)
class _Attempt:
    put: Put
    head: Head | None
    version: Version | None = None
    access: Access = field(default_factory=Access)
    intent_rev: int = 0
    tries: int = 0
    unanswered: bool = False
    """A write of the head was not acknowledged, and its outcome is not yet known."""
    before: Head | None = None
    """The live head until the commit."""
    committed: bool = False
    hidden: bool = False
    """The writer can't see what it replaces: its own neighbour, written for others."""
    refusal: str = ""
    result: PutResult | None = None

    @property
    def known(self) -> Head:
        assert self.head is not None  # noqa: S101 - read before each step
        return self.head

    @property
    def token(self) -> str:
        return self.version.token if self.version is not None else ""

    def end(self, status: Literal["unchanged", "overtaken", "unknown"], reason: str = "") -> None:
        self.result = PutResult(status, reason=reason)


def has_content(head: Head, content_hash: str) -> bool:
    """Return whether the live version has this content."""
    return head.version is not None and head.content_hash == content_hash


def is_unchanged(head: Head, content_hash: str, access: AccessChange) -> bool:
    """Return whether the live version has this content and these readers."""
    return has_content(head, content_hash) and _new_access(head, access).is_equivalent(head.access or Access())


def put_documents(steps: Steps, scope: Scope, puts: Sequence[Put]) -> list[PutResult]:
    """Write documents together. Replacements are visible on return, new documents after a refresh.

    Raises:
        StoreUnavailable: the cluster stayed unavailable; nothing is lost, and repeating the call finishes the work.
        StoreError: the cluster rejects writes.
    """
    attempts = [_Attempt(put, put.head) for put in puts]
    todo = attempts
    while todo:
        _intend(steps, scope, todo)
        staged = [attempt for attempt in todo if attempt.result is None]
        _stage(steps, staged)
        if any(attempt.known.version is not None for attempt in staged):
            steps.reveal([attempt.known for attempt in staged])
        _commit(steps, [attempt for attempt in staged if not attempt.refusal])
        _give_up(steps, [attempt for attempt in staged if attempt.refusal])
        todo = [attempt for attempt in staged if attempt.result is None]
    committed = [attempt.known for attempt in attempts if attempt.committed and attempt.known.open]
    steps.finish(committed)
    steps.clear(committed)
    return [_visible_result(attempt, attempt.result) for attempt in attempts if attempt.result is not None]


def _visible_result(attempt: _Attempt, result: PutResult) -> PutResult:
    """Return the result; if the writer can't see what it replaced, the result is that of a new document."""
    if attempt.hidden and result.status in ("updated", "unchanged"):
        return replace(result, status="created")
    return result


def _intend(steps: Steps, scope: Scope, attempts: Sequence[_Attempt]) -> None:
    """Announce each attempt in its head; afterwards it has a result or a version to stage."""
    todo = list(attempts)
    for attempt in todo:
        attempt.version, attempt.unanswered, attempt.refusal = None, False, ""
    until = time.monotonic() + steps.patience_s
    for _ in range(_CONFLICTS):
        _look_up(steps, scope, [attempt for attempt in todo if attempt.head is None])
        todo = [attempt for attempt in todo if not _needs_no_staging(steps, scope, attempt)]
        if not todo:
            return
        written = steps.write("intent", [_intent(steps, attempt) for attempt in todo])
        again = []
        for attempt, item in zip(todo, written, strict=True):
            if item.head is not None:
                attempt.head, attempt.intent_rev = item.head, item.head.rev
                continue
            attempt.head = None
            again.append(attempt)
        todo = again
        if not todo:
            return
        if any(item.outcome == "unknown" for item in written) and time.monotonic() > until:
            raise StoreUnavailable(
                f"OpenSearch did not store the heads of documents for {steps.patience_s:.0f} s; nothing is lost: "
                "send the request again"
            )
    for attempt in todo:
        attempt.end("overtaken", OVERTAKEN)


def _look_up(steps: Steps, scope: Scope, attempts: Sequence[_Attempt]) -> None:
    if attempts:
        targets = find_targets(steps, scope, [attempt.put.document_id for attempt in attempts])
        for attempt in attempts:
            attempt.head = targets[attempt.put.document_id].head


def _needs_no_staging(steps: Steps, scope: Scope, attempt: _Attempt) -> bool:
    """Return whether there is nothing to stage: the content is live already, or only its readers change."""
    put, head = attempt.put, attempt.known
    attempt.hidden = not head.readable(scope.principals)
    if not has_content(head, put.content_hash):
        if not put.passages:  # its writer relied on the content, but it was replaced meanwhile
            attempt.end("overtaken", OVERTAKEN)
        return attempt.result is not None
    if is_unchanged(head, put.content_hash, put.access):
        # its writer may not have finished: success is reported only when searches see this version alone
        if head.untidy and not steps.tidy(head):
            _look_up(steps, scope, [attempt])
            return _needs_no_staging(steps, scope, attempt)
        passages = head.version.passages if head.version is not None else 0
        attempt.result = PutResult("unchanged", passages, access=head.access or Access())
        return True
    try:
        principals = None if attempt.hidden else scope.principals
        done = change_access(steps, [head], put.access, content_hash=put.content_hash, principals=principals)
    except WriteConflict:
        attempt.end("overtaken", OVERTAKEN)
        return True
    except OutcomeUnknown:
        attempt.end("unknown", UNKNOWN)
        return True
    if done is None:  # replaced or deleted meanwhile
        attempt.head = None
        _look_up(steps, scope, [attempt])
        return _needs_no_staging(steps, scope, attempt)
    attempt.result = PutResult("updated", done.passages, revoking=done.revoking, access=done.access)
    return True


def _intent(steps: Steps, attempt: _Attempt) -> Head:
    put, head = attempt.put, attempt.known
    if head.twin and not head.exists:
        enrol(steps, head)
    attempt.access = _new_access(head, put.access)
    token = make_token(put.content_hash, head.rev + 1, make_nonce(), head.twin)
    attempt.version = Version(token, len(put.passages), steps.write_index())
    return replace(head, pending=(*head.pending, attempt.version))


def _stage(steps: Steps, attempts: Sequence[_Attempt]) -> None:
    """Write the passages of all attempts; mark those that OpenSearch rejects."""
    if not attempts:
        return
    renewed = time.monotonic()

    def renew() -> None:
        nonlocal renewed
        if time.monotonic() - renewed < _RENEW_S:
            return
        renewed = time.monotonic()
        for attempt, item in zip(attempts, steps.write("intent", [a.known for a in attempts]), strict=True):
            if item.head is not None:  # otherwise the commit finds out
                attempt.head = item.head

    refused: dict[str, str] = {}
    # the index in the head, even if the alias has moved: reads look for the passages there
    for index in dict.fromkeys(attempt.version.index for attempt in attempts if attempt.version is not None):
        there = [a for a in attempts if a.version is not None and a.version.index == index]
        versions = {attempt.put.document_id: attempt.intent_rev for attempt in there}
        outcome = steps.stage([attempt.known for attempt in there], _passages(there), index, versions, renew)
        refused |= {failure.document_id: failure.reason for failure in reversed(outcome.failed)}
    for attempt in attempts:
        attempt.refusal = refused.get(attempt.put.document_id, "")


def _passages(attempts: Sequence[_Attempt]) -> Iterator[Passage]:
    for attempt in attempts:
        for passage in attempt.put.passages:
            key = passage_id(passage.tenant, passage.document_id, attempt.token, passage.position)
            yield with_access(replace(passage, id=key, content_hash=attempt.token), attempt.access)


def _commit(steps: Steps, attempts: Sequence[_Attempt]) -> None:
    """Make each version live while its attempt is pending; a fenced attempt has no result yet or gives up."""
    todo = list(attempts)
    until = time.monotonic() + steps.patience_s
    while todo:
        ready = [attempt for attempt in todo if _may_commit(steps, attempt)]
        written = steps.write("commit", [_committed_head(attempt) for attempt in ready])
        todo = []
        for attempt, item in zip(ready, written, strict=True):
            if item.head is not None:
                _succeed(attempt, item.head)
                continue
            attempt.unanswered |= item.outcome == "unknown"
            todo.append(attempt)
        if todo and time.monotonic() > until and all(attempt.unanswered for attempt in todo):
            for attempt in todo:
                attempt.end("unknown", UNKNOWN)
            return
        if todo:
            found = steps.read(attempt.known for attempt in todo)
            for attempt in todo:
                attempt.head = found[attempt.known.key]


def _may_commit(steps: Steps, attempt: _Attempt) -> bool:
    """Return whether the attempt is still pending; otherwise decide on its outcome."""
    head = attempt.known
    for _ in range(CONFIRMATIONS):
        if head.version is None or head.version.token != attempt.token:
            break
        item = steps.confirm(head)  # it was committed, but not acknowledged
        if item.head is not None:
            _succeed(attempt, item.head)
            return False
        head = attempt.head = steps.read([head])[head.key]
    if attempt.version in head.pending:
        return True
    if attempt.unanswered:  # or it was committed, but could not be confirmed
        attempt.end("unknown", UNKNOWN)
        return False
    attempt.tries += 1
    revoked = bool(attempt.put.access) and head.access_rev > attempt.intent_rev
    if revoked or attempt.tries >= _ATTEMPTS:
        attempt.end("overtaken", OVERTAKEN)
    attempt.head = None  # look it up again: the fencing writer may have hidden the document from this writer
    return False


def _committed_head(attempt: _Attempt) -> Head:
    head, version = attempt.known, attempt.version
    others = [item for item in head.pending if item != version]
    garbage = (*head.garbage, *others, *([head.version] if head.version is not None else []))
    attempt.before = head
    return replace(
        head,
        version=version,
        content_hash=attempt.put.content_hash,
        source_id=attempt.put.source_id,
        access=attempt.access,
        pending=(),
        garbage=garbage,
        unsettled=False,
    )


def _succeed(attempt: _Attempt, head: Head) -> None:
    before = attempt.before
    replaced = before is not None and before.version is not None
    attempt.head, attempt.committed = head, True
    attempt.result = PutResult(
        "updated" if replaced else "created",
        len(attempt.put.passages),
        revoking=replaced and before is not None and attempt.access.narrows(before.access or Access()),
        access=attempt.access,
    )


def _give_up(steps: Steps, attempts: Sequence[_Attempt]) -> None:
    """Fence attempts whose passages were rejected, and erase their passages; a sweep does it if this fails."""
    fenced = [
        replace(
            attempt.known,
            pending=tuple(item for item in attempt.known.pending if item != attempt.version),
            garbage=(*attempt.known.garbage, *([attempt.version] if attempt.version is not None else [])),
        )
        for attempt in attempts
    ]
    written = [item.head for item in steps.write("commit", fenced) if item.head is not None]
    steps.finish(written)
    steps.clear(written)
    for attempt in attempts:
        attempt.result = PutResult("refused", reason=attempt.refusal)


def _new_access(head: Head, access: AccessChange) -> Access:
    return (head.access or Access()).changed(access)
