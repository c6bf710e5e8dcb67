"""Analysis of a query's text: identifiers, quoted phrases, neighbouring words. No cluster.

The rules for identifiers mirror the analyzer ``braid_codes`` of the index (component template ``braid-fields``): both
split at white space and brackets, trim punctuation at the edges, and keep terms with a digit and a letter or inner mark
(``ERR-4711``, ``v2.19.1``, ``AB-12/34``), so that such a query term equals an indexed term or none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

MAX_TERMS = 900
"""Maximum terms: OpenSearch rejects queries of more than 1,024 clauses. The others are for identifiers and quotes."""
_MAX_PAIRS = 16
_MAX_CODES = 8
_MAX_PHRASES = 4
_MAX_CHECKED = 8

# the standard tokenizer makes a term of each ideograph, kana or emoji, and of each run of other word characters
_TERM = re.compile(
    r"[☀-➿⺀-鿿가-힯豈-﫿\U0001f000-\U0001faff\U00020000-\U0003ffff]|[^\W⺀-鿿가-힯豈-﫿\U00020000-\U0003ffff]+"
)
_WORD = re.compile(r"\w+(?:[.'’_-]\w+)*")
_SPLIT = re.compile(r"[\s,;|(){}\[\]<>\"'`“”„«»]+")
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
_CODE = re.compile(r"(?=.*\d)(?=.*[^\W\d_]|.*[_.:/#@-]).*", re.DOTALL)
_DECIMAL = re.compile(r"\d+[.,:]\d+")
_MARK = re.compile(r"[_.:/#@-]")
_DECADE = re.compile(r"\d0s$")
_QUOTED = re.compile(r"[\"“„«]([^\"“”„«»]{2,200})[\"”“»]")
_QUESTION = re.compile(
    r"(what|who|whom|whose|which|when|where|why|how|is|are|was|were|do|does|did|can|could|should|would|will|has|have|had)"
    r"\b",
    re.IGNORECASE,
)

_QUESTION_MARKS = ("?", "？", "؟", "\u037e")
"""Also those of Chinese, Arabic and Greek."""

ENGLISH_STOP_WORDS = frozenset(
    """a an and are as at be but by for if in into is it no not of on or such that the their then there these they this
    to was will with what which who how when where why does do did can""".split()  # noqa: SIM905 - a list of words
)
"""Lucene's English stop words, and question words: pairs are made of the other words."""


@dataclass(frozen=True, slots=True)
class QueryText:
    """An analysed query.

    `text` is the text for the lexical leg (`terms` terms, cut after `MAX_TERMS` if `cut`); `pairs` are adjacent words
    without stop words; `codes` are identifiers in lower case; `phrases` were in quotation marks; `checked` are the
    words whose absence from the collection may mean a typing error; `words` is the number of words without stop words,
    `question` is True for questions. `fields` are the text fields of the languages that it may be in, best first; empty
    if only the main one is asked.
    """

    text: str
    terms: int
    cut: bool
    pairs: tuple[str, ...]
    codes: tuple[str, ...]
    phrases: tuple[str, ...]
    checked: tuple[str, ...]
    words: int
    question: bool
    fields: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Return whether it contains something to find verbatim."""
        return bool(self.codes or self.phrases)


def is_distinctive(code: str) -> bool:
    """Return whether an identifier is unambiguous: ``ERR-4711``, ``v2.19.1``, ``KB5012170``, unlike ``il-6``.

    A distinctive identifier decides the order; another only adds to the score (benchmarks/fusion.md).
    """
    marks, digits = len(_MARK.findall(code)), sum(character.isdigit() for character in code)
    letters = any(character.isalpha() for character in code)
    if _DECADE.search(code):
        return False
    named = code[0].isalpha() and digits >= 3
    return named or (letters and marks >= 1 and digits >= 3) or (marks >= 2 and digits >= 2)


def read_query(query: str, fields: tuple[str, ...] = ()) -> QueryText:
    """Analyse `query`; never fails, whatever its content.

    Args:
        fields: text fields of its languages (`store.languages.QueryFields`).
    """
    text, terms = _limit(query)
    content = [word for word in _WORD.findall(text) if word.lower() not in ENGLISH_STOP_WORDS]
    codes = tuple(dict.fromkeys(_codes(text)))[:_MAX_CODES]
    return QueryText(
        text=text,
        terms=terms,
        cut=text != query,
        pairs=tuple(f"{first} {second}" for first, second in pairwise(content[: _MAX_PAIRS + 1])),
        codes=codes,
        phrases=tuple(phrase.strip() for phrase in _QUOTED.findall(text) if phrase.strip())[:_MAX_PHRASES],
        checked=_words_to_check(content, codes),
        words=len(content),
        question=bool(_QUESTION.match(text.strip())) or text.rstrip().endswith(_QUESTION_MARKS),
        fields=fields,
    )


def _limit(query: str) -> tuple[str, int]:
    count = 0
    for count, term in enumerate(_TERM.finditer(query), start=1):
        if count > MAX_TERMS:
            return query[: term.start()], MAX_TERMS
    return query, count


def _codes(text: str) -> list[str]:
    found = []
    for part in _SPLIT.split(text):
        token = _EDGES.sub("", part).lower()
        if 2 <= len(token) <= 128 and _CODE.fullmatch(token) and not _DECIMAL.fullmatch(token):
            found.append(token)
    return found


def _words_to_check(content: list[str], codes: tuple[str, ...]) -> tuple[str, ...]:
    """Return words long enough for correction; none for long queries, which their other words carry."""
    if len(content) > _MAX_CHECKED:
        return ()
    known = " ".join(codes)
    return tuple(
        dict.fromkeys(word for word in content if len(word) >= 4 and word.isalpha() and word.lower() not in known)
    )
