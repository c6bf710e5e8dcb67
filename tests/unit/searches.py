"""Answers of a made-up cluster to searches that are sent together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

Body = dict[str, Any]


def answer_searches(path: str, body: Any, answer: Callable[[Body], Any]) -> Any:
    """Return the answer to `_search`, or those to the searches of `_msearch`."""
    if not path.endswith("/_msearch"):
        return answer(body)
    return {"responses": [answer(orjson.loads(line)) for line in body.splitlines()[1::2]]}


def checked_word(body: Body) -> str | None:
    """Return the word whose presence a search checks; None for others."""
    match = body["query"].get("bool", {}).get("filter", [{}])[0].get("match", {}).get("content")
    return match["query"] if match and not body["size"] else None


def searched_code(body: Body) -> str | None:
    """Return the spellings of the identifier whose passages a search finds; None for others."""
    codes = (part.get("match", {}).get("content.codes") for part in body["query"].get("bool", {}).get("filter", ()))
    return next((match["query"] for match in codes if match), None)
