from __future__ import annotations

import pytest

from app.ingest.enrich import _extractor, _stop_words, keyphrases, normalise_tags
from app.passage import Block, BlockKind, ParsedDocument, SourceType


def document(text: str, title: str = "") -> ParsedDocument:
    return ParsedDocument(title, (Block(BlockKind.PARAGRAPH, text),), SourceType.TEXT)


def test_tags_are_folded_and_what_is_too_much_is_left_out() -> None:
    assert normalise_tags([" Human  Resources ", "hr", "HR", "", "x" * 65]) == ("human resources", "hr")
    assert len(normalise_tags(f"tag{n}" for n in range(50))) == 20


def test_keyphrases_tell_what_a_text_is_about() -> None:
    text = (
        "The suspension bridge across the strait was finished in spring. Engineers tested the suspension cables of the "
        "bridge for a month, since the wind load in the strait is high. The bridge now carries the railway as well."
    )
    found = keyphrases(document(text, "Suspension bridge"))
    assert 1 <= len(found) <= 5
    assert any("bridge" in tag for tag in found)


def test_every_language_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    """Reports go to stdout as JSON: a library that prints there would break them."""
    for language, words in _stop_words().items():
        text = " ".join(sorted(words)[:60]) + " xylophone concerto " * 3
        keyphrases(document(text))
        _extractor(language)
    assert capfd.readouterr().out == ""


def test_no_keyphrases_where_they_would_be_noise() -> None:
    assert keyphrases(document("Too short.")) == ()
    assert keyphrases(document("4711 0815 " * 40)) == ()
    assert keyphrases(document("qwx zrtp klmv bnd " * 20)) == ()
