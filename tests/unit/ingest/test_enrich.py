from __future__ import annotations

import pytest

from app.ingest.passages.enrich import _extractor, _language, keyphrases, normalise_tags
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


@pytest.mark.parametrize(
    "language", ["ar", "cs", "de", "en", "fi", "fr", "hi", "ja", "nb", "pt", "ru", "tr", "xx", "zh"]
)
def test_every_language_is_quiet(capfd: pytest.CaptureFixture[str], language: str) -> None:
    """Reports go to stdout as JSON: a library that prints there would break them."""
    _extractor(language).extract_keywords("xylophone concerto " * 3)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Die Brücke wurde im Frühjahr fertig, und die Kabel wurden einen Monat lang geprüft.", "de"),
        ("Le pont a été achevé au printemps, et les câbles ont été vérifiés pendant un mois.", "fr"),
        ("Most byl dokončen na jaře a lana byla po celý měsíc zkoušena, protože vítr je silný.", "cs"),
        ("Broen ble ferdig på våren, og kablene ble testet i en måned fordi vinden er sterk der.", "no"),
        ("Мост был закончен весной, и канаты проверяли в течение месяца, потому что там сильный ветер.", "ru"),
        ("qwx zrtp klmv bnd qwx zrtp klmv bnd", None),
        ("ERR-4711 0x00ff PATH=/usr/bin; rm -rf node_modules", None),
        ("", None),
    ],
)
def test_the_language_of_running_text(text: str, language: str | None) -> None:
    assert _language(text) == language


def test_no_keyphrases_where_they_would_be_noise() -> None:
    assert keyphrases(document("Too short.")) == ()
    assert keyphrases(document("4711 0815 " * 40)) == ()
    assert keyphrases(document("qwx zrtp klmv bnd " * 20)) == ()
