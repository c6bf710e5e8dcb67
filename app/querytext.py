"""Analysis of a query's text: identifiers, quoted phrases, neighbouring words, and which of too many words to keep. No
cluster.

The rules for identifiers mirror the analyzer ``braid_codes`` of the index (component template ``braid-fields``): both
split at white space and brackets, trim punctuation at the edges, and keep terms with a digit and a letter or inner mark
(``ERR-4711``, ``v2.19.1``, ``AB-12/34``), so that such a query term equals an indexed term or none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

MAX_TERMS = 800
"""Maximum terms: OpenSearch rejects queries of more than 1,024 clauses by default. The others are for identifiers in
all their spellings, and quotes."""
_MAX_PAIRS = 16
_MAX_CODES = 8
_MAX_PHRASES = 4
_MAX_CHECKED = 8
_MAX_PARTS = 4
"""Maximum terms of a word that is looked for in other spellings: a text without spaces is one word of very many."""
_MAX_LETTERS = 64
"""Maximum letters of such a word; a longer run of letters is text without spaces, or noise."""

# the standard tokenizer makes a term of each ideograph, kana or emoji, and of each run of other word characters
_TERM = re.compile(
    r"[☀-➿⺀-鿿가-힯豈-﫿\U0001f000-\U0001faff\U00020000-\U0003ffff]|[^\W⺀-鿿가-힯豈-﫿\U00020000-\U0003ffff]+"
)
_WORD = re.compile(r"\w+(?:[.'’_-]\w+)*")
_WIDE = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
"""Full-width letters, digits and marks -> those of ASCII."""
_JOINED = re.compile(r"([^\W\d_]{2,})(\d+)")
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

    `text` is the text for the lexical leg (`terms` terms, of too many the rarest if `cut`); `pairs` are adjacent words
    without stop words; `codes` are identifiers in lower case and in ASCII's width; `phrases` were in quotation marks;
    `checked` are the words whose absence from the collection may mean a typing error, `foldable` those that passages
    may have with other accents or in another width; `words` is the number of words without stop words, `question` is
    True for questions. `fields` are the text fields of the languages that it may be in, best first; empty if only the
    main one is asked.

    `folded` are the words that are matched without accents, too, and with `stop_words` there are no others: then stop
    words are matched.
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
    foldable: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    stop_words: bool = False

    @property
    def apart(self) -> tuple[str, ...]:
        """Identifiers that passages may have as two words: ``ppr 9087`` of ``ppr9087``."""
        found = (_JOINED.fullmatch(code) for code in self.codes)
        return tuple(f"{parts[1]} {parts[2]}" for parts in found if parts and parts[1] not in ENGLISH_STOP_WORDS)

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


def read_query(query: str, fields: tuple[str, ...] = (), most: int = MAX_TERMS) -> QueryText:
    """Analyse `query`; never fails, whatever its content.

    Args:
        fields: text fields of its languages (`store.languages.QueryFields`).
        most: maximum terms of the text.
    """
    text, terms, cut = _limit(query, most)
    words = _WORD.findall(query)
    content = [word for word in words if word.lower() not in ENGLISH_STOP_WORDS]
    codes = tuple(dict.fromkeys(_codes(narrow(query))))[:_MAX_CODES]
    return QueryText(
        text=text,
        terms=terms,
        cut=cut,
        pairs=tuple(f"{first} {second}" for first, second in pairwise(content[: _MAX_PAIRS + 1])),
        codes=codes,
        phrases=tuple(phrase.strip() for phrase in _QUOTED.findall(query) if phrase.strip())[:_MAX_PHRASES],
        checked=_words_to_check(content, codes),
        words=len(content),
        question=bool(_QUESTION.match(query.strip())) or query.rstrip().endswith(_QUESTION_MARKS),
        fields=fields,
        foldable=_words_to_fold(content),
        stop_words=bool(words) and not content,
    )


def narrow(text: str) -> str:
    """Return `text` with full-width letters, digits and marks in the width of ASCII."""
    return text if text.isascii() else text.translate(_WIDE)


def widen(text: str) -> str:
    """Return `text` with the letters, digits and marks of ASCII in full width."""
    return "".join(chr(ord(ch) + 0xFEE0) if "!" <= ch <= "~" else ch for ch in text)


def _limit(query: str, most: int) -> tuple[str, int, bool]:
    """Return the text of at most `most` terms, their number, and whether other words were left out.

    Of too many terms, repetitions and stop words go first, then those that are likely to be frequent: short ones
    without a digit, the last first. How rare a word is in the collection is not asked: the index counts the passages
    that a caller may not see, and the choice would tell of them.
    """
    terms = [(found.span(), found[0].lower()) for found in _TERM.finditer(query)]
    if len(terms) <= most:
        return query, len(terms), False
    first = {word: span for span, word in reversed(terms)}
    different = [(span, word) for span, word in terms if first[word] == span]
    if len(different) > most:
        different = [(span, word) for span, word in different if word not in ENGLISH_STOP_WORDS]
    rarest = sorted(different, key=lambda term: (not any(map(str.isdigit, term[1])), -len(term[1]), term[0]))[:most]
    kept = {span for span, _ in rarest}
    parts, end = [], 0
    for span, _ in terms:
        # what stands between the terms stays, so that neighbours stay neighbours, and no others become some
        parts += [query[end : span[0]], query[slice(*span)] if span in kept else " "]
        end = span[1]
    return re.sub(" {2,}", " ", "".join([*parts, query[end:]])).strip(), len(kept), len(different) > most


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
        dict.fromkeys(
            word
            for word in content
            if len(word) >= 4 and word.isalpha() and word.lower() not in known and _is_short(word)
        )
    )


def _words_to_fold(content: list[str]) -> tuple[str, ...]:
    """Return the words to look for in other spellings; of long queries those that have other letters than ASCII's."""
    words = content if len(content) <= _MAX_CHECKED else [word for word in content if not word.isascii()]
    return tuple(dict.fromkeys(filter(_is_short, words)))[:_MAX_CHECKED]


def _is_short(word: str) -> bool:
    return len(word) <= _MAX_LETTERS and len(_TERM.findall(word)) <= _MAX_PARTS
