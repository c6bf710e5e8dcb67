"""Content words in comparable form. Deliberately rough: they weigh sentences, they do not search."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from app.languages import EAST_ASIAN

_WORD = re.compile(r"\w+")
_STOP = frozenset(
    """
    a about after all also an and any are as at be because been before being between both but by can could did do does
    during each for from had has have he her here him his how i if in into is it its just may me more most much must my
    no not now of on only or other our out over own same she should so some such than that the their them then there
    these they this those to too under until up very was we were what when where which who whom whose why will with
    would you your
    """.split()  # noqa: SIM905  # a list of a hundred strings would be no clearer
)
_WITHOUT_SPACES = re.compile(f"{EAST_ASIAN.pattern}|[\u0e00-\u0e7f]+")
_ENDINGS = ("ational", "ations", "ation", "ings", "ing", "edly", "ies", "ied", "es", "ed", "ly", "s")


def content_words(text: str) -> list[str]:
    """Return lower-case words without stop words, with plural and verb endings removed roughly; of Chinese, Japanese,
    Korean and Thai text, which has no spaces or few, pairs of characters.
    """
    return [part for word in _WORD.findall(text.lower()) if word not in _STOP for part in _parts(word)]


def _parts(word: str) -> Iterator[str]:
    begin = 0
    for run in _WITHOUT_SPACES.finditer(word):
        if run.start() > begin:
            yield _stem(word[begin : run.start()])
        characters = run.group()
        yield from map("".join, pairwise(characters)) if len(characters) > 1 else [characters]
        begin = run.end()
    if begin < len(word):
        yield _stem(word[begin:])


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + ("y" if ending in {"ies", "ied"} else "")
    return word
