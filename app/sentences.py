"""Sentence boundaries: the `sentencex` library (Wikimedia), extended for papers and manuals."""

from __future__ import annotations

import re
from itertools import pairwise

import sentencex

_WINDOW = 5_000
"""Characters per call: the library's time grows with the square of its input (10 min for 1 MB of short sentences)."""

_NOT_THE_END = re.compile(
    r"(?:\b(?:figs?|eqs?|eqns?|secs?|sects?|refs?|tabs?|chs?|chap|app|approx|ca|cf|resp|incl|nos?|vols?|pp?|et al|al|"
    r"e\.g|i\.e|viz|vs|ed|eds|dept|min|max|avg|std|temp)\.|^\s*\(?(?:\d{1,3}|[a-zA-Z])[.)])\s*$",
    re.IGNORECASE,
)
"""Abbreviations and list numbers that do not end a sentence."""
_NOT_THE_END_IN = {
    language: re.compile(rf"(?:^|[\s(])(?:{words})\.\s*$", re.IGNORECASE)
    for language, words in {
        "de": "Abb|Abs|Art|Bd|Hrsg|Kap|Nr|Tab|Ziff|bzw|ggf|inkl|sog|vgl|zzgl",
        "es": "Sr|Sra|Dr|Dra|art|cap|fig|núm|pág|págs|tab|p\\. ej",
        "fr": "M|MM|art|chap|éd|env|fig|n°|p\\. ex|tab",
        "it": "Dott|Sig|art|cap|fig|pag|pagg|tab|p\\. es",
        "nl": "afb|art|blz|bv|dhr|hfst|mevr|nr|tab|bijv|m\\.b\\.t",
        "pt": "Sr|Sra|Dr|Dra|art|cap|fig|núm|pág|tab|p\\. ex",
        "ru": "гл|гр|им|млн|млрд|рис|руб|см|стр|табл|тыс|ул|т\\. ?[екдпн]|т",
    }.items()
}
"""Abbreviations of manuals and papers in other languages that the library takes for the end."""
_FULL_STOP_AFTER_ALL = re.compile(r"\b(?:et al|al|min|max|no|app|ed)\.\s*$", re.IGNORECASE)
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")


def sentence_spans(text: str, language: str | None = None) -> list[tuple[int, int, bool]]:
    """Return the sentences of `text` as (start, end, begins a paragraph), without surrounding white space.

    Blank lines end paragraphs. Every character that is not white space is in exactly one span.

    Args:
        language: code of the language whose rules hold; None, or one that the library does not know: English.
    """
    spans: list[tuple[int, int, bool]] = []
    begin = 0
    for match in [*_BLANK_LINE.finditer(text), None]:
        end = match.start() if match else len(text)
        first = True
        for a, b in _paragraph(text, begin, end, language or "en"):
            spans.append((a, b, first))
            first = False
        begin = match.end() if match else end
    return spans


def _paragraph(text: str, begin: int, end: int, language: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for a, b in _windows(text, begin, end):
        at = a
        for sentence in sentencex.segment(language, text[a:b]):
            start, stop = at, at + len(sentence)
            at = stop
            if spans and spans[-1][1] == start and _continues(text, spans[-1], start, language):
                spans[-1] = (spans[-1][0], stop)
            else:
                spans.append((start, stop))
        if at != b:  # the library returned other text than its input: use our own window
            spans = [span for span in spans if span[1] <= a]
            spans.append((a, b))
    return [(x, y) for x, y in (_trim(text, x, y) for x, y in spans) if x < y]


def _continues(text: str, previous: tuple[int, int], start: int, language: str) -> bool:
    tail = text[max(previous[0], previous[1] - 24) : previous[1]]
    if language in _NOT_THE_END_IN and _NOT_THE_END_IN[language].search(tail):
        return True
    if not _NOT_THE_END.search(tail):
        return False
    following = text[start : start + 1]
    # "et al. Foo", "at most 5 min. Then": an ordinary word that can also end sentences, before a capital
    return not (_FULL_STOP_AFTER_ALL.search(tail) and following.isupper())


def _windows(text: str, begin: int, end: int) -> list[tuple[int, int]]:
    """Return stretches of at most `_WINDOW` characters, cut at a line end or after a space if possible."""
    cuts = [begin]
    while end - cuts[-1] > _WINDOW:
        limit = cuts[-1] + _WINDOW
        half = cuts[-1] + _WINDOW // 2
        for mark in ("\n", ". ", " "):
            at = text.rfind(mark, half, limit)
            if at >= 0:
                limit = at + len(mark)
                break
        cuts.append(limit)
    cuts.append(end)
    return list(pairwise(cuts))


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
