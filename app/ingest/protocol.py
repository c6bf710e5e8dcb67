"""Steps of the write protocol; docs/write-protocol.md explains their order and why it is safe.

    put     read, intent, stage, reveal, commit, erase, hide, clear        (`ingest.put`)
    change  read, write of the head, erase, settle, hide, clear            (`ingest.change`: readers, deletion)
    sweep   seize, erase, settle, hide, clear                              (`ingest.sweep`)

`python -m tests.protocol` explores a model of these steps exhaustively: change it together with this code.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import stamina

from app.access import ACCESS_FIELDS, Access
from app.errors import DeadlineExceeded, OutcomeUnknown, StoreError, StoreUnavailable
from app.passage import Passage
from app.store import documents, index_names
from app.store.bulk import BulkOutcome, bulk_erase, bulk_index
from app.store.client import Cluster
from app.store.heads import Head, HeadWrite, read_heads, write_heads

Result = TypeVar("Result")

stamina.instrumentation.set_on_retry_hooks(())  # `on_retry` reports retries in words

STEPS = ("read", "intent", "stage", "reveal", "commit", "erase", "settle", "hide", "clear", "seize", "confirm")
"""Names of the steps, also in the model."""

observe: Callable[[str, Sequence[Head]], None] | None = None
"""Called before each step; tests set it to pause or kill a process there."""

_PAUSE_S = 0.05
"""Pause before reading a head after an unacknowledged write, which may still be under way; plus as much jitter."""
CONFIRMATIONS = 50
"""Number of lost races after which an unacknowledged write is given up: its outcome is unknown."""
_CLEAR_TRIES = 3
_SETTLE_TRIES = 5


class Steps:
    """The steps, on one cluster, with one caller's patience. Not thread-safe."""

    def __init__(
        self, cluster: Cluster, *, patience_s: float = 60.0, on_retry: Callable[[str], None] | None = None
    ) -> None:
        """Create the steps; each waits up to `patience_s` seconds for an unavailable cluster and calls `on_retry` per
        try.
        """
        self.cluster = cluster
        self.patience_s = patience_s
        self._on_retry = on_retry

    def write_index(self) -> str:
        """Return the physical index for new passages."""
        return self._retry(lambda: index_names.write_index(self.cluster))

    def read(self, heads: Iterable[Head]) -> dict[str, Head]:
        """Return the current heads by key."""
        wanted = list(heads)
        self.reach("read", wanted)
        return self._retry(lambda: read_heads(self.cluster, wanted, timeout_s=self._timeout_s))

    def write(self, step: str, heads: Sequence[Head]) -> list[HeadWrite]:
        """Write heads that were changed after reading. Raises StoreError if nothing can be written."""
        if not heads:
            return []
        self.reach(step, heads)
        written = write_heads(self.cluster, heads, timeout_s=self._timeout_s)
        if any(item.outcome == "unknown" for item in written):
            time.sleep(random.uniform(_PAUSE_S, 2 * _PAUSE_S))  # noqa: S311  # not for security
        return written

    def confirm(self, head: Head) -> HeadWrite:
        """Write a head again, unchanged: a read may show a write that is then lost with its primary shard; a write
        acknowledged after it may not be lost.
        """
        return self.write("confirm", [head])[0]

    def stage(
        self,
        heads: Sequence[Head],
        passages: Iterable[Passage],
        index: str,
        versions: dict[str, int],
        between: Callable[[], None],
    ) -> BulkOutcome:
        """Write the passages of attempts. Raises StoreUnavailable, StoreError."""
        self.reach("stage", heads)
        return bulk_index(
            self.cluster,
            passages,
            index=index,
            versions=versions,
            patience_s=self.patience_s,
            on_retry=self._on_retry,
            between=between,
        )

    def reveal(self, heads: Sequence[Head]) -> None:
        """Make staged passages visible to searches, before the heads are switched to them."""
        self.reach("reveal", heads)
        self.refresh()

    def hide(self, heads: Sequence[Head]) -> None:
        """Hide erased and rewritten passages from searches, before success is reported."""
        self.reach("hide", heads)
        self.refresh()

    def refresh(self) -> None:
        """Make all writes visible to searches."""
        self._retry(lambda: documents.refresh(self.cluster))

    def erase(self, heads: Sequence[Head]) -> None:
        """Erase the passages of all versions that can't become live any more; a deleted index is not created again."""
        self.reach("erase", heads)
        indexes = {version.index for head in heads for version in head.garbage}
        # the passages of a deleted index are gone
        there = self._retry(lambda: index_names.existing(self.cluster, indexes))
        gone = [
            (version.index, key)
            for head in heads
            for version in head.garbage
            if version.index in there
            for key in version.ids(head)
        ]
        if gone:
            bulk_erase(self.cluster, gone, patience_s=self.patience_s, on_retry=self._on_retry)

    def settle(self, head: Head) -> None:
        """Give the live passages the readers of the head. They must have been refreshed since they were written.

        Raises:
            StoreError: passages that the head counts are missing repeatedly.
        """
        version = head.version
        if version is None or head.access is None:
            return
        for _ in range(_SETTLE_TRIES):
            self.reach("settle", [head])
            self.refresh()
            stored = documents.read_version(self.cluster, head)
            outcome = bulk_index(
                self.cluster,
                (with_access(passage, head.access) for passage in stored),
                index=version.index,
                versions={head.document_id: head.access_rev},
                patience_s=self.patience_s,
                on_retry=self._on_retry,
            )
            if outcome.failed:
                raise StoreError(f"OpenSearch refused the document with its new readers: {outcome.failed[0].reason}")
            if outcome.indexed >= version.passages:
                return
            now = self.read([head])[head.key]
            if now.version != version:  # replaced or deleted meanwhile: nothing to settle
                return
        raise StoreError(
            f"only {outcome.indexed} of {version.passages} passages of the document exist: run `braid heads audit`"
        )

    def finish(self, heads: Sequence[Head]) -> None:
        """Complete the write of heads: erase, settle, and make the result visible to searches.

        Raises:
            OutcomeUnknown: the cluster became unavailable; the heads are live, but native searches may not see it yet.
            StoreError.
        """
        if not heads:
            return
        try:
            self.erase(heads)
            for head in heads:
                if head.unsettled:
                    self.settle(head)
            self.hide(heads)
        except StoreUnavailable as error:
            raise OutcomeUnknown(
                f"{error.detail}. The write is effective for this service, but other clients of the cluster may "
                "not see it yet; repeating the call is safe"
            ) from error

    def tidy(self, head: Head) -> bool:
        """Finish the work of another writer that has died or is still at it. False: the head was written meanwhile."""
        written = self.confirm(head).head
        if written is None:
            return False
        self.finish([written])
        self.clear([written])
        return True

    def clear(self, heads: Sequence[Head]) -> None:
        """Record in the heads that `finish` is done. Failures are left to the next writer or to a sweep."""
        todo = [(head, head) for head in heads if head.open]
        for _ in range(_CLEAR_TRIES):
            if not todo:
                return
            try:
                written = self.write("clear", [_cleared(now, done) for now, done in todo])
                todo = [pair for pair, item in zip(todo, written, strict=True) if item.outcome != "stored"]
                found = self.read(done for _, done in todo)
            except (StoreError, DeadlineExceeded):
                return
            pairs = [(found[done.key], done) for _, done in todo]
            todo = [(now, done) for now, done in pairs if now.exists and _cleared(now, done) != now]

    def reach(self, step: str, heads: Sequence[Head]) -> None:
        """Notify the observer of the step."""
        if observe is not None:
            observe(step, heads)

    @property
    def _timeout_s(self) -> float:
        return max(1.0, min(10.0, self.patience_s))

    def _retry(self, call: Callable[[], Result]) -> Result:
        for attempt in stamina.retry_context(
            on=StoreUnavailable, attempts=None, timeout=self.patience_s, wait_initial=0.2, wait_max=5.0
        ):
            with attempt:
                if attempt.num > 1 and self._on_retry is not None:
                    self._on_retry("it does not answer")
                return call()
        raise AssertionError("retry_context returns or raises")  # pragma: no cover


def fenced(head: Head) -> Head:
    """Return the head without pending attempts, which might bring back what is changed or erased now."""
    return replace(head, pending=(), garbage=(*head.garbage, *head.pending))


def with_access(passage: Passage, access: Access) -> Passage:
    """Return the passage with other readers."""
    return replace(passage, **{name: getattr(access, name) for name in ACCESS_FIELDS})


def make_nonce() -> str:
    """Return 32 random bits as 8 hex digits, so that attempts have unique names."""
    return secrets.token_hex(4)


def _cleared(now: Head, done: Head) -> Head:
    settled = now.access_rev == done.access_rev and now.version == done.version
    return replace(
        now,
        garbage=tuple(version for version in now.garbage if version not in done.garbage),
        unsettled=now.unsettled and not (done.unsettled and settled),
    )
