"""Bounds the words of a query: OpenSearch refuses a `match` of more than 1,024 terms."""

from __future__ import annotations

import re

MAX_TERMS = 1000
# the standard tokenizer makes a term of each ideograph or kana, and of each run of other word characters
_TERM = re.compile(r"[⺀-鿿가-힯豈-﫿\U00020000-\U0003ffff]|[^\W⺀-鿿가-힯豈-﫿\U00020000-\U0003ffff]+")


def bounded_terms(query: str, limit: int = MAX_TERMS) -> tuple[str, bool]:
    """`query` cut behind its `limit`-th term, and whether anything was cut."""
    for count, term in enumerate(_TERM.finditer(query), start=1):
        if count > limit:
            return query[: term.start()], True
    return query, False
