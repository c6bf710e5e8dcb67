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


ACCENTS = "accents of "
"""Begins what `checked_word` returns for words that are looked for in other accents."""


def checked_word(body: Body) -> str | None:
    """Return the word whose presence a search checks; None for others."""
    if body["size"] or "filter" not in body["query"].get("bool", {}):
        return None
    clause = body["query"]["bool"]["filter"][0]
    parts = clause.get("bool", {}).get("should", [clause])
    if "match" in parts[0]:
        return str(parts[0]["match"]["content"]["query"])
    folded = [part["bool"]["must"][0]["match"]["content.folded"]["query"] for part in parts if "bool" in part]
    return ACCENTS + " ".join(folded) if folded else None


def searched_code(body: Body) -> str | None:
    """Return the first spelling of the identifier whose passages a search finds; None for others."""
    codes = (part.get("match", {}).get("content.codes") for part in body["query"].get("bool", {}).get("filter", ()))
    return next((match["query"].split()[0] for match in codes if match), None)
