"""What an ingest run says of languages, and what passages know of theirs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from app.config import load_settings
from app.generation.content_words import content_words
from app.ingest.cutting import recipe, to_passages, version_of
from app.ingest.language_notes import UNKNOWN, language_notes
from app.ingest.records import ready_document
from app.passage import Document, Passage

GERMAN = "Der Verbrauch der Pumpe wird bzw. wurde jede Stunde gemessen und im Protokoll gespeichert."
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class CountingEncoder:
    """Counts words as tokens."""

    name, dimension, gives_tokens = "all-MiniLM-L6-v2", 384, False
    max_tokens, passage_prefix = 256, ""

    def encode_passages(self, texts: Any, /) -> Any:
        return np.zeros((len(texts), 384), np.float32)

    def encode_passages_with_tokens(self, texts: Any, keep: Any, /) -> Any:
        raise NotImplementedError

    def token_offsets(self, text: str, /) -> list[tuple[int, int]]:
        return [(at, at + 1) for at, character in enumerate(text) if character == " "]


def document_of(text: str, **fields: Any) -> Document:
    return ready_document({"document_id": "d", "text": text, **fields}, tenant="t", source_id="s")


def passages(text: str, **fields: Any) -> list[Passage]:
    document = document_of(text, **fields)
    return to_passages(document, settings=load_settings(), encoder=CountingEncoder(), written=NOW, tagging=False)


def notes(counts: dict[str, int], **settings: Any) -> list[str]:
    return list(language_notes(counts, load_settings(**settings)))


def test_a_passage_has_the_detected_language_and_the_stated_one_goes_before() -> None:
    (found,) = passages(GERMAN)
    assert (found.language, found.detected_language, found.text_language) == (None, "de", "de")
    assert found.language_confidence is not None
    assert found.language_confidence > 0.5
    (stated,) = passages(GERMAN, language="fr-CA")
    assert (stated.language, stated.detected_language, stated.text_language) == ("fr-ca", "de", "fr")
    (emoji,) = passages("😀 " * 30)
    assert (emoji.detected_language, emoji.language_confidence, emoji.text_language) == (None, 0.0, None)


def test_english_documents_keep_their_hash() -> None:
    made_by = recipe(load_settings(), CountingEncoder())
    english = document_of("The consumption of the pump is measured every hour.")
    assert version_of(english, made_by) == english.content_hash(f"{made_by} document=d")
    german = document_of(GERMAN)
    assert version_of(german, made_by) == german.content_hash(f"{made_by} document=d sentences=de")


def test_english_alone_needs_no_note() -> None:
    assert notes({"en": 100, "de": 1, UNKNOWN: 2}) == []
    assert notes({}) == []


def test_languages_that_do_not_fit_are_named_with_the_remedy() -> None:
    analysis, encoder = notes({"en": 100, "de": 40, "zh": 3, "fr": 2})
    assert analysis.startswith("40 passages in de, 3 passages in zh: analysed as english only. Set BRAID_LANGUAGES=")
    assert "BRAID_LANGUAGES=en,de,zh, then" in analysis
    assert encoder.startswith("40 passages in de, 3 passages in zh: all-MiniLM-L6-v2 reads English only")
    (encoder,) = notes({"en": 100, "de": 40}, languages="en,de")
    assert "reads English only" in encoder
    (analysis,) = notes({"en": 100, "de": 40, "fr": 9}, languages="en,de", embedding_model="mine", embedding_path="/m")
    assert "9 passages in fr" in analysis
    assert "BRAID_LANGUAGES=en,de,fr" in analysis


def test_texts_in_no_language_are_named() -> None:
    (note,) = notes({"en": 9, UNKNOWN: 1})
    assert note.startswith("1 of 10 passages are in no certain language")
    assert "`language`" in note
    assert len(notes({UNKNOWN: 1})) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The pumps were running", ["pump", "runn"]),
        ("门锁检查 GIL", ["门锁", "锁检", "检查", "gil"]),
        ("API的锁", ["api", "的锁"]),
        ("門", ["門"]),
    ],
)
def test_content_words_of_text_without_spaces_are_pairs(text: str, words: list[str]) -> None:
    assert content_words(text) == words
