"""Topic tags: given, from front matter, from folder names, and keyphrases when there are none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from app.passage import BlockKind, ParsedDocument

if TYPE_CHECKING:
    import yake

MAXIMUM_TAGS = 20
LONGEST_TAG = 64
MAXIMUM_KEYPHRASES = 5

_SLICE = 1_000
"""Characters that keyphrases are looked for in, after the title: the cost grows with them (benchmarks/ingest.md)."""
_WORST_SCORE = 0.2
"""YAKE's score (lower is better) above which a phrase says little of the document."""
_LEAST_LETTERS = 0.6
"""Share of letters in what is not white space, below which the text is numbers or the debris of a PDF."""
_LEAST_STOP_WORDS = 0.15
"""Share of a language's stop words in running text of it is 0.3 to 0.5; below this it is not text of that language."""

_WORD = re.compile(r"[^\W\d_]+")
_PHRASE = re.compile(r"[^\W\d_]{2,}(?:[-'’][^\W\d_]+)*(?: [^\W\d_]{3,}(?:[-'’][^\W\d_]+)*)*")
_DEBRIS = re.compile(r"\(cid:\d+\)|https?://\S+|\S+@\S+|�+")


def normalise_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Trim, lower, drop empty and repeated ones, in order: what the ingest pipeline of the store does too.

    At most 20 tags of at most 64 characters; what is over is left out, not cut: half a tag is another tag.
    """
    kept = dict.fromkeys(" ".join(tag.split()).lower() for tag in tags)
    return tuple(tag for tag in kept if tag and len(tag) <= LONGEST_TAG)[:MAXIMUM_TAGS]


def keyphrases(document: ParsedDocument) -> tuple[str, ...]:
    """At most 5 phrases of one or two words that tell what the document is about (YAKE, Campos et al. 2020).

    None where the text is too short, is not text, or is in a language whose stop words are not known: no tag is better
    than a wrong one. Looks at the title and the first 1,000 characters only.
    """
    text = _opening(document)
    solid = [ch for ch in text if not ch.isspace()]
    if len(solid) < 100 or sum(ch.isalpha() for ch in solid) < _LEAST_LETTERS * len(solid):
        return ()
    language = _language(text)
    if language is None:
        return ()
    found: list[str] = []
    for phrase, score in _extractor(language).extract_keywords(text):
        tag = phrase.strip(" .,;:-").lower()
        if score > _WORST_SCORE or len(tag) < 3 or len(tag) > LONGEST_TAG or not _PHRASE.fullmatch(tag):
            continue
        words = set(tag.split())
        if any(words <= set(other.split()) or words >= set(other.split()) for other in found):
            continue  # "matter" beside "white matter"
        found.append(tag)
    return tuple(found[:MAXIMUM_KEYPHRASES])


def _opening(document: ParsedDocument) -> str:
    parts = [document.title + "."] if document.title else []
    length = 0
    for block in document.blocks:
        if block.kind in (BlockKind.PARAGRAPH, BlockKind.LIST_ITEM, BlockKind.HEADING):
            parts.append(block.text[: _SLICE - length])
            length += len(parts[-1])
            if length >= _SLICE:
                break
    return _DEBRIS.sub(" ", "\n".join(parts))


@cache
def _extractor(language: str) -> yake.KeywordExtractor:
    import yake  # half a second, and most documents have tags

    # our own reading of the list: YAKE's prints a line to stdout for those in another encoding
    return yake.KeywordExtractor(lan=language, n=2, top=20, stopwords=set(_stop_words()[language]))


@cache
def _stop_words() -> dict[str, frozenset[str]]:
    lists = {}
    for file in (resources.files("yake") / "core" / "StopwordsList").iterdir():
        if match := re.fullmatch(r"stopwords_([a-z]{2})\.txt", file.name):
            lists[match[1]] = frozenset(file.read_bytes().decode("utf-8", "replace").lower().split())
    return lists


def _language(text: str) -> str | None:
    """Two-letter code of the language whose stop words make up most of `text`; None where none does."""
    words = [word.lower() for word in _WORD.findall(text)]
    if not words:
        return None
    shares = {code: sum(word in listed for word in words) / len(words) for code, listed in _stop_words().items()}
    # English first among equals: the lists overlap in short words
    best = max(shares, key=lambda code: (shares[code], code == "en"), default=None)
    return best if best and shares[best] >= _LEAST_STOP_WORDS else None
