"""Documents as Cohere's API takes them: texts, or objects of which some fields are ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reranker.errors import RerankerError

Document = str | dict[str, Any]


class UnrankableDocument(RerankerError):
    """A document has no text to rank; `place` is its index, and the field's name if one is to blame."""

    def __init__(self, detail: str, place: tuple[int | str, ...]) -> None:
        super().__init__(detail)
        self.place = place


def ranked_texts(documents: Sequence[str | Mapping[str, Any]], rank_fields: Sequence[str] | None) -> list[str]:
    """Return the text of each document: itself, or the fields of an object that are ranked, one a line.

    Args:
        documents: texts, or objects with any fields.
        rank_fields: fields to rank, in this order; those that an object lacks are skipped. None or empty: `text`.

    Raises:
        UnrankableDocument: an object has none of the fields, or one is not a string.
    """
    names = tuple(rank_fields or ("text",))
    return [item if isinstance(item, str) else _text(place, item, names) for place, item in enumerate(documents)]


def as_object(document: Document) -> dict[str, Any]:
    """Return a document as an answer shows it: an object as it was sent, a text as its `text`."""
    return {"text": document} if isinstance(document, str) else document


def _text(place: int, document: Mapping[str, Any], names: Sequence[str]) -> str:
    found = [(name, document[name]) for name in names if name in document]
    if not found:
        listed = ", ".join(map(repr, names))
        raise UnrankableDocument(f"has none of the fields to rank ({listed}): name its own in rank_fields", (place,))
    for name, value in found:
        if not isinstance(value, str):
            raise UnrankableDocument(f"Input should be a valid string (got {type(value).__name__})", (place, name))
    return "\n".join(value for _, value in found)
