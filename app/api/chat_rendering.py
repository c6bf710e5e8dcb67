"""An answer as OpenAI's chat completion: whole, or as chunks."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from app.api import chat_schemas as schemas

Json = dict[str, Any]
LAST = b"data: [DONE]\n\n"

_MARK = re.compile(r"\[(\d+)\]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+!|~$&@-]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
"""Characters with a meaning, also those that make a link of an address."""
_OF_A_URL = ":/?#@!$&*+,;=%"


@dataclass(frozen=True, slots=True)
class ChatRenderer:
    """Renders one completion.

    Attributes:
        model: name as the client sent it.
        address: root address of this service, with a slash at its end.
        lists_sources: whether the text ends with a list of its sources.
        counts: whether chunks have `usage`, of which the last one has the counts.
    """

    model: str
    address: str
    lists_sources: bool
    counts: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, body: Json) -> schemas.ChatCompletion:
        """Return the body of an answer as a completion."""
        citations = self._citations(body)
        text = body["answer"] or ""
        message = schemas.ChatMessage(
            content=text + self._source_list(body, citations), annotations=_annotations(text, citations)
        )
        return schemas.ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=[schemas.ChatChoice(message=message)],
            usage=_usage(body),
            citations=citations,
            braid=_details(body),
        )

    def first(self) -> bytes:
        """Return the chunk that begins the message."""
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> bytes:
        """Return the chunk with a piece of the text."""
        return self._chunk({"content": text})

    def end(self, body: Json) -> Iterator[bytes]:
        """Yield the last chunks: the list of sources, citations and annotations, the counts."""
        citations = self._citations(body)
        if listed := self._source_list(body, citations):
            yield self.piece(listed)
        annotations = [item.model_dump() for item in _annotations(body["answer"] or "", citations)]
        yield self._chunk(
            {"annotations": annotations},
            finish_reason="stop",
            citations=[item.model_dump() for item in citations],
            braid=_details(body).model_dump(),
        )
        if self.counts:
            yield self._event({"choices": [], "usage": _usage(body).model_dump()})
        yield LAST

    def _chunk(self, delta: Json, finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._event({"choices": [choice], **({"usage": None} if self.counts else {}), **more})

    def _event(self, fields: Json) -> bytes:
        named = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}
        return b"data: " + orjson.dumps({**named, **fields}) + b"\n\n"

    def _citations(self, body: Json) -> list[schemas.ChatCitation]:
        found = []
        for item in body["citations"]:
            result = body["results"][item["marker"] - 1]
            title = result["title"] or result["document_id"]
            found.append(schemas.ChatCitation(**item, title=title, url=self._url(result, item["page"])))
        return found

    def _url(self, result: Json, page: int | None) -> str:
        """Return the address of a cited document: its own on the web, or else where this service shows it."""
        uri: str = result["uri"]
        if not uri.startswith(("http://", "https://")):
            return f"{self.address}v1/documents/{quote(result['document_id'], safe='')}"
        # what a client makes of an address may be Markdown or HTML
        address = quote(uri, safe=_OF_A_URL)
        # browsers open a PDF at that page
        return f"{address}#page={page}" if page is not None and "#" not in address else address

    def _source_list(self, body: Json, citations: list[schemas.ChatCitation]) -> str:
        if not self.lists_sources or not citations:
            return ""
        lines = []
        for item in {item.marker: item for item in citations}.values():
            title = _MARKDOWN.sub(r"\\\1", " ".join(item.title.split()))
            if body["results"][item.marker - 1]["uri"].startswith(("http://", "https://")):
                title = f"[{title}](<{item.url}>)"
            page = f", page {item.page}" if item.page is not None else ""
            lines.append(f"- \\[{item.marker}\\] {title}{page}")
        return "\n\nSources:\n\n" + "\n".join(lines)


def _annotations(text: str, citations: list[schemas.ChatCitation]) -> list[schemas.Annotation]:
    """Return the marks of a text that name a source."""
    sources = {item.marker: item for item in citations}
    found = []
    for mark in _MARK.finditer(text):
        if source := sources.get(int(mark[1])):
            place = schemas.UrlCitation(
                start_index=mark.start(), end_index=mark.end(), title=source.title, url=source.url
            )
            found.append(schemas.Annotation(url_citation=place))
    return found


def _usage(body: Json) -> schemas.ChatUsage:
    return schemas.ChatUsage(**(body["usage"] or {}))


def _details(body: Json) -> schemas.ChatDetails:
    return schemas.ChatDetails(
        answered_by=body["model"],
        **{name: body[name] for name in schemas.ChatDetails.model_fields if name != "answered_by"},
    )
