"""Use cases that tools may call, as one caller and within one time budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.cache.codec import Json
from app.deadline import Deadline
from app.features import Features
from app.gateway.audit import note, note_read
from app.search.request import AnswerRequest, SearchRequest
from app.serving.answer import AnswerUseCase
from app.serving.browsing import BrowseUseCase, OpenedPassages
from app.serving.reads import ReadCall
from app.serving.search import SearchUseCase
from app.store.browsing import ListedDocument
from app.store.filters import PassageFilter, Scope


@dataclass(frozen=True, slots=True)
class Agent:
    """The use cases of one caller. Everything is limited to `scope`, and raises BraidError as its use case does."""

    scope: Scope
    features: Features
    deadline: Deadline
    searching: SearchUseCase
    answering: AnswerUseCase
    browsing: BrowseUseCase

    def search(self, request: SearchRequest) -> Json:
        """Return the body of a SearchResponse."""
        return _noted(self.searching.run(ReadCall(request, self.scope, self.features, self.deadline)))

    def answer(self, request: AnswerRequest) -> Json:
        """Return the body of an AnswerResponse."""
        return _noted(self.answering.run(ReadCall(request, self.scope, self.features, self.deadline)))

    def documents(self, wanted: PassageFilter, after: str, size: int) -> tuple[Sequence[ListedDocument], bool]:
        """Return documents with greater ids than `after`, and whether there are more."""
        listed, more = self.browsing.documents(self.scope, wanted, after=after, size=size, deadline=self.deadline)
        note(documents=len(listed))
        return listed, more

    def passage(self, passage_id: str, neighbours: int) -> OpenedPassages:
        """Return a passage with its neighbours."""
        opened = self.browsing.passage(self.scope, passage_id, neighbours=neighbours, deadline=self.deadline)
        note(document_id=opened.passages[0].document_id, results=len(opened.passages))
        return opened

    def page(self, document_id: str, page: int, neighbours: int, size: int) -> OpenedPassages:
        """Return the passages of a page with their neighbours."""
        note(document_id=document_id)
        return self.browsing.page(
            self.scope, document_id, page, neighbours=neighbours, size=size, deadline=self.deadline
        )

    def document(self, document_id: str, start: int, size: int) -> OpenedPassages:
        """Return passages of a document from a position."""
        note(document_id=document_id)
        return self.browsing.document(self.scope, document_id, start=start, size=size, deadline=self.deadline)


def _noted(body: Json) -> Json:
    note_read(body)
    return body
