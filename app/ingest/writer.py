"""The order of writes that replaces a document without a moment in which it can't be found.

A version of a document is the passages that share its content hash; their ids come from that hash, so a new version
never overwrites the old one and a repeated write changes nothing. Written are first the passages from position 1 on,
then position 0, which marks the version complete, then the new version is made visible (refresh), and only then the
other versions are deleted. A run that is killed anywhere in between leaves the old version, or both, or a new one that
is not complete: the next run sees that position 0 of the current hash is missing and writes the same passages again,
or finds it there and deletes what is left of others.

A writer sees what its caller's scope sees: versions that the caller may not read are neither replaced nor counted, nor
is their presence shown by anything that comes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import stamina

from app.access import Access
from app.errors import StoreError, StoreUnavailable
from app.passage import Passage
from app.store.bulk import bulk_index
from app.store.client import Cluster
from app.store.documents import (
    Versions,
    complete_versions,
    delete_documents,
    delete_incomplete,
    delete_stale,
    refresh,
)
from app.store.filters import Scope

Result = TypeVar("Result")

stamina.instrumentation.set_on_retry_hooks(())  # `on_retry` says it, in words for people

_NO_WRITES = frozenset({401, 403})
"""A refusal of the cluster rather than of the passage (no permission, disk full): all others would fare the same."""


@dataclass(slots=True)
class Written:
    """What became of the documents whose last passage was in the slice."""

    complete: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Document id -> OpenSearch's reason."""
    overtaken: list[str] = field(default_factory=list)
    """Documents that somebody else wrote since they were looked up: ours was not written. Whose readers it would have
    had may be out of date."""
    passages: int = 0
    visible: bool = False
    """Whether searches see the slice already; else with the next refresh."""
    revoking: bool = False
    """Whether somebody who could read one of the documents before can't any more."""


class Writer:
    """Writes the passages of one run. Not thread-safe; `busy_s` is the time spent on the cluster."""

    def __init__(
        self,
        cluster: Cluster,
        scope: Scope,
        *,
        patience_s: float = 60.0,
        on_retry: Callable[[str], None] | None = None,
    ) -> None:
        self._cluster = cluster
        self._scope = scope
        self._patience_s = patience_s
        self._on_retry = on_retry
        self._refused: dict[str, str] = {}
        self.busy_s = 0.0

    def versions(self, document_ids: Sequence[str]) -> dict[str, Versions]:
        """The complete versions that the store has of each document, as far as the caller may see them."""
        return self._patiently(lambda: complete_versions(self._cluster, self._scope, document_ids))

    def keep_only(self, versions: Mapping[str, str]) -> int:
        """Delete what there is of other versions than the one named, for each document; how many passages went."""
        return self._patiently(lambda: delete_stale(self._cluster, self._scope, versions)) if versions else 0

    def delete(self, document_ids: Sequence[str]) -> int:
        """Delete documents; how many passages went."""
        return self._patiently(lambda: delete_documents(self._cluster, self._scope, document_ids))

    def refresh(self) -> None:
        """Make all writes visible."""
        self._patiently(lambda: refresh(self._cluster))

    def write(self, passages: Sequence[Passage], older: Mapping[str, Versions]) -> Written:
        """Write a slice of the run's passages, of one or more documents.

        Args:
            passages: with vectors; position 0 of a document comes in the same slice as its other passages or later.
            older: complete versions that the store had of the documents before.

        Raises:
            StoreUnavailable: the cluster stayed away for longer than the patience.
            StoreError: the cluster takes no writes.
        """
        begun = time.perf_counter()
        try:
            return self._write(passages, older)
        finally:
            self.busy_s += time.perf_counter() - begun

    def _write(self, passages: Sequence[Passage], older: Mapping[str, Versions]) -> Written:
        written = Written()
        written.passages += self._bulk([passage for passage in passages if passage.position])
        heads = [passage for passage in passages if not passage.position]
        written.overtaken = self._overtaken(heads, older)
        self._refused |= dict.fromkeys(written.overtaken, "overtaken")
        written.passages += self._bulk(heads)
        complete = {head.document_id: head for head in heads if head.document_id not in self._refused}
        written.complete = list(complete)
        if any(older.get(document_id) for document_id in complete):
            self.refresh()
            written.visible = True
        self.keep_only({document_id: head.content_hash for document_id, head in complete.items()})
        written.revoking = any(
            Access(head.acl, head.acl_1, head.acl_2, head.acl_3, head.acl_4).narrows(readers)
            for document_id, head in complete.items()
            for version, readers in older.get(document_id, {}).items()
            if version != head.content_hash
        )
        for head in heads:
            if (reason := self._refused.pop(head.document_id, None)) is not None:
                if head.document_id not in written.overtaken:
                    written.failed[head.document_id] = reason
                self._undo(head)
        return written

    def _overtaken(self, heads: Sequence[Passage], older: Mapping[str, Versions]) -> list[str]:
        """Those of which there are complete versions now that there were not when `older` was read."""
        now = self.versions([head.document_id for head in heads]) if heads else {}
        return [
            head.document_id
            for head in heads
            if now.get(head.document_id, {}).keys() - older.get(head.document_id, {}).keys() - {head.content_hash}
        ]

    def _bulk(self, passages: Sequence[Passage]) -> int:
        wanted = [passage for passage in passages if passage.document_id not in self._refused]
        if not wanted:
            return 0
        outcome = bulk_index(self._cluster, wanted, patience_s=self._patience_s, on_retry=self._on_retry)
        for failure in outcome.failed:
            if failure.status in _NO_WRITES:
                raise StoreError(f"OpenSearch refuses all writes ({failure.status}): {failure.reason}")
            self._refused.setdefault(failure.document_id, failure.reason)
        return outcome.indexed

    def _undo(self, head: Passage) -> None:
        """Take back what went in of a version that can't become complete; the one before it stays."""
        self._patiently(lambda: delete_incomplete(self._cluster, head.tenant, head.document_id, head.content_hash))

    def _patiently(self, call: Callable[[], Result]) -> Result:
        for attempt in stamina.retry_context(
            on=StoreUnavailable, attempts=None, timeout=self._patience_s, wait_initial=0.2, wait_max=5.0
        ):
            with attempt:
                if attempt.num > 1 and self._on_retry is not None:
                    self._on_retry("it does not answer")
                return call()
        raise AssertionError("retry_context returns or raises")  # pragma: no cover
