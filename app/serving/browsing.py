"""Use case of reading without a query: listing documents, and opening a page or a passage with its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.deadline import Deadline
from app.errors import NotFound
from app.gateway.admission import Admission
from app.passage import Hit
from app.search.readiness_gate import ReadinessGate
from app.serving.readiness import CHECK_TIMEOUT_S
from app.store.browsing import ListedDocument, find_passages, list_documents
from app.store.client import Cluster
from app.store.filters import EVERYTHING, Clause, PassageFilter, Scope
from app.store.head_check import HeadCheck


@dataclass(frozen=True, slots=True)
class OpenedPassages:
    """Adjacent passages of a document, in order; `asked` are the ids of those that were asked for.

    `has_more`: the document goes on after them, as far as the caller can see it.
    """

    passages: tuple[Hit, ...]
    asked: frozenset[str]
    has_more: bool


@dataclass(frozen=True, slots=True)
class BrowseUseCase:
    """Lists and opens documents. What a caller may not see is as what does not exist. Thread-safe."""

    cluster: Cluster
    heads: HeadCheck
    gate: ReadinessGate
    admission: Admission

    def documents(
        self, scope: Scope, wanted: PassageFilter, *, after: str, size: int, deadline: Deadline
    ) -> tuple[list[ListedDocument], bool]:
        """Return up to `size` documents after the id `after`, and whether there are more.

        Raises:
            Overloaded: no turn is free in time.
            StoreError, DeadlineExceeded.
        """
        heads = self._check(deadline)
        with self.admission.enter(deadline):
            return list_documents(self.cluster, heads, scope, wanted, after=after, size=size, deadline=deadline)

    def passage(self, scope: Scope, passage_id: str, *, neighbours: int, deadline: Deadline) -> OpenedPassages:
        """Return a passage and up to `neighbours` passages on each side. Raises NotFound, and as `documents`."""
        heads = self._check(deadline)
        with self.admission.enter(deadline):
            found = self._find(heads, scope, [{"ids": {"values": [passage_id]}}], 1, deadline)
            if not found:
                raise NotFound(f"there is no passage {passage_id!r}: search again, documents may have changed")
            return self._widened(heads, scope, found, neighbours, deadline)

    def page(
        self, scope: Scope, document_id: str, page: int, *, neighbours: int, size: int, deadline: Deadline
    ) -> OpenedPassages:
        """Return the first `size` passages of a page, and up to `neighbours` on each side. Raises as `passage`."""
        heads = self._check(deadline)
        with self.admission.enter(deadline):
            wanted = PassageFilter(document_id=(document_id,), pages=(page,))
            found = self._find(heads, scope, [], size, deadline, wanted)
            if not found:
                raise NotFound(
                    f"there is no page {page} of a document {document_id!r}; documents of types without pages are "
                    "opened without `page`"
                )
            return self._widened(heads, scope, found, neighbours, deadline)

    def document(self, scope: Scope, document_id: str, *, start: int, size: int, deadline: Deadline) -> OpenedPassages:
        """Return `size` passages of a document from the position `start`, from 0. Raises as `passage`."""
        heads = self._check(deadline)
        with self.admission.enter(deadline):
            wanted = PassageFilter(document_id=(document_id,))
            found = self._find(heads, scope, [_positions(start, None)], size + 1, deadline, wanted)
            if not found:
                raise NotFound(f"there is no document {document_id!r}, or none that goes on there")
            shown = tuple(found[:size])
            return OpenedPassages(shown, frozenset(hit.id for hit in shown), len(found) > size)

    def _check(self, deadline: Deadline) -> HeadCheck | None:
        """Return the check of what is in force; None for an index of an older Braid, which has no heads."""
        left = min(CHECK_TIMEOUT_S, deadline.remaining_s("readiness"))
        return self.heads if self.gate.state(self.gate.begin(), left).read_only is None else None

    def _find(
        self,
        heads: HeadCheck | None,
        scope: Scope,
        further: Sequence[Clause],
        size: int,
        deadline: Deadline,
        wanted: PassageFilter = EVERYTHING,
    ) -> list[Hit]:
        return find_passages(self.cluster, heads, scope, wanted, further, size=size, deadline=deadline)

    def _widened(
        self, heads: HeadCheck | None, scope: Scope, found: Sequence[Hit], neighbours: int, deadline: Deadline
    ) -> OpenedPassages:
        """Return adjacent passages of one version with their neighbours; one more tells whether it goes on."""
        first, last = found[0], found[-1]
        begin, end = max(0, first.position - neighbours), last.position + neighbours
        wanted = PassageFilter(document_id=(first.document_id,))
        version: Clause = {"term": {"content_hash": first.content_hash}}
        around = self._find(heads, scope, [version, _positions(begin, end + 1)], end - begin + 2, deadline, wanted)
        shown = tuple(hit for hit in around if hit.position <= end)
        if not shown:  # replaced between the two requests
            raise NotFound("the document has just changed: search again")
        return OpenedPassages(shown, frozenset(hit.id for hit in found), len(around) > len(shown))


def _positions(begin: int, end: int | None) -> Clause:
    bounds = {"gte": begin} if end is None else {"gte": begin, "lte": end}
    return {"range": {"position": bounds}}
