"""Table of the tools: name, arguments, and what each makes of a use case's result. Nothing here knows the protocol."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.cache.codec import Json
from app.errors import InvalidInput
from app.mcp.agent import Agent
from app.mcp.fence import fenced
from app.passage import Hit
from app.search.request import AnswerRequest, FilterRequest, Query, SearchRequest
from app.store.browsing import ListedDocument
from app.values import Identifier, Integer, PageNumber, Value

MOST_RESULTS = 20
MOST_NEIGHBOURS = 5
_DEEPEST = 100
"""Results that pages of a search reach: the number of candidates that is tuned by default."""
_SHORT_TEXT = 1_200
"""Characters of a passage in a list of results; `open_page` has the rest."""
_LONG_TEXT = 12_000
"""Characters of all passages of one opened page."""
_OPENED = 20
"""Passages of one opened page."""
_BOUNDS = {"ge": "minimum", "le": "maximum"}
"""JSON Schema's names of bounds that Pydantic leaves as they are where a type has a validator of its own."""
_SKIPPED = re.compile(r"\d{1,3}", re.ASCII)
_PLACE = re.compile(r"(\d{1,7})(?::(\d{1,8}))?", re.ASCII)


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Size = Annotated[Integer, Field(ge=1, le=MOST_RESULTS, description=f"Number of results, {MOST_RESULTS} at most.")]
Cursor = Annotated[
    str | None, Field(max_length=4096, description="Where to go on: the cursor of the previous result, unchanged.")
]
Filter = Annotated[FilterRequest, Field(description="Narrows to documents; dates by `timestamp`: {gte, lte}.")]


class SearchArguments(_Arguments):
    query: Annotated[Query, Field(description="A question or words; identifiers as they are written.")]
    filter: Filter = FilterRequest()
    size: Size = 5
    cursor: Cursor = None


class FindArguments(_Arguments):
    document_id: Annotated[Identifier, Field(description="The document, as another tool named it.")]
    query: Annotated[Query, Field(description="A question or words.")]
    size: Size = 5
    cursor: Cursor = None


class OpenArguments(_Arguments):
    document_id: Annotated[Identifier | None, Field(description="The document; or give `passage`.")] = None
    page: Annotated[PageNumber | None, Field(description="Page of the document; without it, from its beginning.")] = (
        None
    )
    passage: Annotated[Value | None, Field(description="Id of a passage, in place of `document_id`.")] = None
    neighbours: Annotated[
        Integer, Field(ge=0, le=MOST_NEIGHBOURS, description="Passages to add on each side of `passage` or `page`.")
    ] = 1
    cursor: Annotated[
        Cursor, Field(description="Where to go on in `document_id`: the cursor of the previous result.")
    ] = None

    @model_validator(mode="after")
    def _names_one_place(self) -> OpenArguments:
        if (self.document_id is None) == (self.passage is None):
            raise ValueError("send document_id, or passage: one of them")
        if self.passage is not None and (self.page is not None or self.cursor is not None):
            raise ValueError("page and cursor belong to document_id: omit them with passage")
        if self.page is not None and self.cursor is not None:
            raise ValueError("send page or cursor, not both")
        return self


class ListArguments(_Arguments):
    filter: Filter = FilterRequest()
    size: Size = MOST_RESULTS
    cursor: Cursor = None


class AnswerArguments(_Arguments):
    query: Annotated[Query, Field(description="The question.")]
    filter: Filter = FilterRequest()


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool; `run` returns the text for the agent. Raises BraidError as the use case."""

    name: str
    title: str
    description: str
    arguments: type[BaseModel]
    run: Callable[[Agent, Any], str]

    @property
    def schema(self) -> Json:
        """JSON Schema of the arguments, without what says nothing: it is in the context of each agent."""
        found: Json = _compact(self.arguments.model_json_schema())
        return found


def _search(agent: Agent, given: SearchArguments) -> str:
    return _found(agent, given.query, given.filter, given.size, given.cursor)


def _find_in_document(agent: Agent, given: FindArguments) -> str:
    wanted = FilterRequest.model_validate({"document_id": [given.document_id]})
    return _found(agent, given.query, wanted, given.size, given.cursor)


def _found(agent: Agent, query: str, wanted: FilterRequest, size: int, cursor: str | None) -> str:
    start = _number(cursor)
    size = min(size, _DEEPEST - start)
    if size < 1:
        raise InvalidInput(f"cursor: pages of a search reach {_DEEPEST} results: narrow the query or the filter")
    found = agent.search(SearchRequest.model_validate({"query": query, "filter": wanted, "size": size, "from": start}))
    results = [_result(place, item) for place, item in enumerate(found["results"], start=start + 1)]
    if not results:
        return _joined("Nothing more was found." if start else "Nothing was found.", _degraded(found))
    least = "at least " if found["total_relation"] == "gte" else ""
    after = start + len(results)
    more = after < found["total"] or found["total_relation"] == "gte"
    going_on = None
    if more and len(results) == size and after + size <= _DEEPEST:
        going_on = f"For more results, call again with cursor {str(after)!r}."
    return _joined(
        f"Results {start + 1} to {after} of {least}{found['total']}.",
        fenced(results),
        "To read on around a result, call open_page with its `passage`.",
        going_on,
        _degraded(found),
    )


def _open_page(agent: Agent, given: OpenArguments) -> str:
    skip = 0
    if given.passage is not None:
        opened = agent.passage(given.passage, given.neighbours)
    elif given.page is not None:
        opened = agent.page(given.document_id or "", given.page, given.neighbours, _OPENED)
    else:
        start, skip = _place(given.cursor)
        opened = agent.document(given.document_id or "", start, _OPENED)
    shown: list[Json] = []
    left, going_on = _LONG_TEXT, None
    for hit in opened.passages:
        if left <= 0:
            going_on = f"{hit.position}"
            break
        text = hit.text[skip : skip + left]
        shown.append(_passage(hit, text, asked=hit.id in opened.asked))
        left -= len(text)
        if skip + len(text) < len(hit.text):
            going_on = f"{hit.position}:{skip + len(text)}"
            break
        skip = 0
    if going_on is None and opened.has_more:
        going_on = f"{opened.passages[-1].position + 1}"
    hint = f"The document goes on: call open_page with its `document_id` and cursor {going_on!r}."
    return _joined(fenced(shown), hint if going_on is not None else "The document ends here.")


def _list_documents(agent: Agent, given: ListArguments) -> str:
    listed, more = agent.documents(given.filter.passage_filter(), _unpacked(given.cursor), given.size)
    if not listed:
        return "There are no more documents." if given.cursor else "There are no such documents."
    hint = f"For more documents, call again with cursor {_packed(listed[-1].first.document_id)!r}."
    return _joined(
        fenced([_document(item) for item in listed]),
        hint if more else "These are all.",
        "To read one, call open_page with its `document_id`; to search in it, find_in_document.",
    )


def _answer(agent: Agent, given: AnswerArguments) -> str:
    made = agent.answer(AnswerRequest.model_validate({"query": given.query, "filter": given.filter}))
    if made["abstained"] or not made["answer"]:
        return _joined("The documents do not answer this question.", _degraded(made))
    quotes = [
        _set(
            marker=item["marker"],
            passage=item["id"],
            document_id=item["document_id"],
            page=item["page"],
            quote=item["quote"],
        )
        for item in made["citations"]
    ]
    return _joined(
        "The answer, and the passages that its marks [n] cite:",
        fenced([{"answer": made["answer"]}, *quotes]),
        "To read around a citation, call open_page with its `passage`.",
        _degraded(made),
    )


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "search",
            "Search documents",
            "Find passages of the user's documents that match a question or words, best first.",
            SearchArguments,
            _search,
        ),
        Tool(
            "find_in_document",
            "Search within one document",
            "Find passages of one document that match a question or words, best first.",
            FindArguments,
            _find_in_document,
        ),
        Tool(
            "open_page",
            "Open a page",
            "Read a passage with its neighbours, a page of a document, or a document from its beginning.",
            OpenArguments,
            _open_page,
        ),
        Tool(
            "list_documents",
            "List documents",
            "List the documents that can be searched, by id, optionally filtered.",
            ListArguments,
            _list_documents,
        ),
        Tool(
            "answer",
            "Answer a question",
            "Answer a question from the documents, with citations. For a quick answer; `search` for evidence.",
            AnswerArguments,
            _answer,
        ),
    )
}
"""The tools by name, in the order in which they are listed."""


def _result(place: int, item: Json) -> Json:
    text = item["text"]
    return _set(
        n=place,
        passage=item["id"],
        document_id=item["document_id"],
        title=item["title"],
        heading=item["section_heading"],
        page=item["page"],
        date=item["timestamp"],
        text=text[:_SHORT_TEXT],
        cut=len(text) > _SHORT_TEXT,
    )


def _passage(hit: Hit, text: str, *, asked: bool) -> Json:
    return _set(
        passage=hit.id,
        document_id=hit.document_id,
        title=hit.title,
        heading=hit.section_heading,
        page=hit.page,
        position=hit.position,
        neighbour=not asked,
        text=text,
    )


def _document(item: ListedDocument) -> Json:
    first = item.first
    return _set(
        document_id=first.document_id,
        title=first.title,
        source_id=first.source_id,
        type=first.source_type,
        tags=list(first.topic_tags),
        language=first.language,
        date=first.timestamp,
        last_page=item.last_page,
        passages=item.passages,
    )


def _set(**fields: Any) -> Json:
    """Return the fields that say something; short results leave room in the agent's context."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], False)}


def _compact(schema: Any) -> Any:
    """Return a schema without generated titles, nulls and empty defaults: an optional field may be omitted."""
    if isinstance(schema, list):
        return [_compact(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        schema = {name: value for name, value in schema.items() if name != "anyOf"} | kinds[0]
    schema = {_BOUNDS.get(name, name): value for name, value in schema.items()}
    kept = {name: value for name, value in schema.items() if name != "title" and (name != "default" or value)}
    for name in ("properties", "$defs"):
        if name in kept:
            kept[name] = {key: _compact(value) for key, value in kept[name].items()}
    if isinstance(kept.get("default"), dict):
        del kept["default"]
    return {name: value if name in {"properties", "$defs"} else _compact(value) for name, value in kept.items()}


def _degraded(body: Json) -> str | None:
    parts = "; ".join(f"{item['stage']} ({item['reason']})" for item in body["degraded"])
    return f"Incomplete: {parts}." if parts else None


def _joined(*lines: str | None) -> str:
    return "\n".join(line for line in lines if line)


def _number(cursor: str | None) -> int:
    """Return the number of results to skip. Raises InvalidInput."""
    if cursor is None:
        return 0
    if _SKIPPED.fullmatch(cursor) is None:
        raise _no_cursor(cursor)
    return int(cursor)


def _place(cursor: str | None) -> tuple[int, int]:
    """Return a position in a document, and the characters of that passage to skip. Raises InvalidInput."""
    if cursor is None:
        return 0, 0
    found = _PLACE.fullmatch(cursor)
    if found is None:
        raise _no_cursor(cursor)
    return int(found[1]), int(found[2] or 0)


def _packed(document_id: str) -> str:
    """Return a cursor after a document; an id may be any text, and here it stands outside the fence."""
    return base64.urlsafe_b64encode(document_id.encode()).decode().rstrip("=")


def _unpacked(cursor: str | None) -> str:
    if cursor is None:
        return ""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return raw.decode()
    except (binascii.Error, ValueError) as error:
        raise _no_cursor(cursor) from error


def _no_cursor(cursor: str) -> InvalidInput:
    return InvalidInput(f"cursor: {cursor[:40]!r} is not a cursor of this tool: send that of the previous result")
