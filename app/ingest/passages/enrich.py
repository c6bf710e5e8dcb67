"""Topic tags: from the caller, front matter and folder names, or else keyphrases."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from app.languages import detect
from app.passage import BlockKind, ParsedDocument
from app.values import nfc

if TYPE_CHECKING:
    import yake

MAXIMUM_TAGS = 20
LONGEST_TAG = 64
MAXIMUM_KEYPHRASES = 5

_SLICE = 1_000
"""Characters after the title that are searched for keyphrases: the time grows with them (benchmarks/ingest.md)."""
_WORST_SCORE = 0.2
"""YAKE score (lower is better) above which a phrase says little about the document."""
_LEAST_LETTERS = 0.6
"""Minimum share of letters in non-blank text; below it, the text is numbers or PDF debris."""
_LEAST_STOP_WORDS = 0.15
"""Minimum share of stop words: running text of a language has 0.3 to 0.5 of its stop words."""

_YAKE_CODES = {"cs": "cz", "nb": "no", "nn": "no"}
"""Language code -> name of YAKE's list."""

_WORD = re.compile(r"[^\W\d_]+")
_PHRASE = re.compile(r"[^\W\d_]{2,}(?:[-'’][^\W\d_]+)*(?: [^\W\d_]{3,}(?:[-'’][^\W\d_]+)*)*")
_DEBRIS = re.compile(r"\(cid:\d+\)|https?://\S+|\S+@\S+|�+")


def normalise_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Trim and lowercase, drop empty and repeated tags, keep the order, like the store's ingest pipeline; compose.

    At most 20 tags of at most 64 characters are kept. Others are dropped, not cut: half a tag is another tag.
    """
    kept = dict.fromkeys(nfc(" ".join(tag.split())).lower() for tag in tags)
    return tuple(tag for tag in kept if tag and len(tag) <= LONGEST_TAG)[:MAXIMUM_TAGS]


def keyphrases(document: ParsedDocument) -> tuple[str, ...]:
    """Return at most 5 phrases of one or two words on the document's topic (YAKE, Campos et al. 2020).

    The result is empty if the text is too short, is not prose, or is in a language without a list of stop words: no tag
    is better than a wrong one. Only the title and the first 1,000 characters are used.
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
    import yake  # the import takes half a second, and most documents have tags

    with contextlib.redirect_stdout(None):  # it prints a line for lists in another encoding
        return yake.KeywordExtractor(lan=_YAKE_CODES.get(language, language), n=2, top=20)


def _language(text: str) -> str | None:
    """Return the language code of running text, or None; stop words confirm it."""
    words = [word.lower() for word in _WORD.findall(text)]
    language = detect(text).language
    if language is None:
        return None
    stop_words = _extractor(language).stopword_set
    return language if words and sum(word in stop_words for word in words) >= _LEAST_STOP_WORDS * len(words) else None
