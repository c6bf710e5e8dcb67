"""Notes of an ingest run on languages: which ones the encoder or the text analysis does not fit, and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.config import Settings
from app.config.embedding_models import BUILT_IN
from app.languages import ANALYZERS
from app.store.languages import text_fields

UNKNOWN = "unknown"
"""Key of the passages without a certain language in the counts."""
_SHARE, _FEWEST = 0.02, 3
"""Least share of the run's passages, and least number, for a note on a language: fewer may be errors of detection."""
_UNKNOWN_SHARE = 0.05


def language_notes(counts: Mapping[str, int], settings: Settings) -> Iterator[str]:
    """Yield what does not fit, in words.

    Args:
        counts: language -> passages of the run.
    """
    total = sum(counts.values())
    known = {code: number for code, number in counts.items() if code != UNKNOWN}
    many = {code: number for code, number in known.items() if number >= max(_FEWEST, _SHARE * total) or total < _FEWEST}
    main = settings.index.language
    there = {*text_fields(settings.index), *(code for code, analyzer in ANALYZERS.items() if analyzer == main)}
    if others := {code: number for code, number in many.items() if code in ANALYZERS and code not in there}:
        named = settings.index.language_codes or [code for code in many if code in there]
        codes = ",".join(dict.fromkeys((*named, *others)))
        yield (
            f"{_counted(others)}: analysed as {main} only. Set BRAID_LANGUAGES={codes}, then run `braid templates "
            "apply` and `braid reindex` (docs/languages.md)"
        )
    model = settings.embedding.model
    foreign = {code: number for code, number in many.items() if code != "en"}
    built_in = BUILT_IN.get(model) if settings.embedding.path is None else None  # of others, nothing is known
    if foreign and built_in is not None and not built_in.multilingual:
        yield (
            f"{_counted(foreign)}: {model} reads English only, so the vector leg rarely finds them. Take "
            f"{_multilingual()}, or a model of your own (docs/embedding.md)"
        )
    unknown = counts.get(UNKNOWN, 0)
    if unknown and unknown >= _UNKNOWN_SHARE * total:
        yield (
            f"{unknown} of {total} passages are in no certain language (numbers, emoji, names, mixed scripts): "
            f"analysed as {main} only. If they have one, state it as `language` of the document (docs/languages.md)"
        )


def _multilingual() -> str:
    return " or ".join(name for name, model in BUILT_IN.items() if model.multilingual)


def _counted(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number} passages in {code}" for code, number in ordered)
