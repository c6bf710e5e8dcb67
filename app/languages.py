"""Languages of texts: the table of those that are analysed, and detection by script and by py3langid.

Detection guesses. Nothing is filtered by a guess; a passage without a certain one is analysed like any other.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

STANDARD = "standard"
CJK = "cjk"
"""OpenSearch's analyzer of pairs of characters."""
ANALYZERS = {
    "ar": "arabic", "bg": "bulgarian", "bn": "bengali", "ca": "catalan", "ckb": "sorani", "cs": "czech", "da": "danish",
    "de": "german", "el": "greek", "en": "english", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian",
    "fi": "finnish", "fr": "french", "ga": "irish", "gl": "galician", "hi": "hindi", "hu": "hungarian",
    "hy": "armenian", "id": "indonesian", "it": "italian", "ja": CJK, "ko": CJK, "lt": "lithuanian", "lv": "latvian",
    "nl": "dutch", "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sv": "swedish",
    "th": "thai", "tr": "turkish", "zh": CJK,
    **dict.fromkeys(
        ("af", "az", "be", "bs", "cy", "he", "hr", "is", "ka", "kk", "mk", "mr", "ms", "ne", "pa", "pl", "sk", "sl",
         "sq", "sr", "sw", "ta", "te", "tl", "uk", "ur", "vi"),
        STANDARD,
    ),
}  # fmt: skip
"""ISO 639 code -> the built-in analyzer of OpenSearch. `STANDARD`: OpenSearch has no stop words and stemming of the
language without a plugin; its words are kept as they are."""
SAME = {"nb": "no", "nn": "no", "iw": "he", "in": "id", "fil": "tl"}
"""Other codes of languages in the table."""

CERTAIN = 0.5
"""Confidence from which a passage counts as written in its detected language (benchmarks/languages.md)."""
_CERTAIN_QUERY = 0.8
"""Confidence from which a query is only searched in one of the languages of its script."""
_POSSIBLE = 0.1
"""Confidence from which an uncertain query is also searched in a language."""
_MOST = 3
"""Maximum languages that an uncertain query is searched in."""
_SAMPLE = 200
"""Characters of the two samples of a text, at its beginning and its middle: each takes about a microsecond."""
_MAIN_SCRIPT = 0.7
"""Share of the letters of other scripts than Latin that the main one of a text has; else the scripts are mixed."""
_OTHER_SCRIPT = 0.2
"""Share of letters from which a script other than Latin counts: names and technical terms are often Latin."""

_SCRIPTS: tuple[tuple[str, tuple[str, ...] | None], ...] = (
    ("぀-ヿㇰ-ㇿｦ-ﾟ", ("ja",)),
    ("ᄀ-ᇿ㄰-㆏가-힯", ("ko",)),
    ("㐀-䶿一-鿿豈-﫿\U00020000-\U0003ffff", ("zh", "ja")),
    ("Ͱ-Ͽἀ-῿", ("el",)),
    ("Ѐ-ԯ", ("be", "bg", "kk", "mk", "ru", "sr", "uk")),
    ("԰-֏", ("hy",)),
    ("֐-׿", ("he",)),
    ("؀-ۿݐ-ݿࢠ-ࣿﭐ-﷿ﹰ-﻿", ("ar", "ckb", "fa", "ur")),
    ("ऀ-ॿ", ("hi", "mr", "ne")),
    ("ঀ-৿", ("bn",)),
    ("਀-੿", ("pa",)),
    ("஀-௿", ("ta",)),
    ("ఀ-౿", ("te",)),
    ("฀-๿", ("th",)),
    ("Ⴀ-ჿ", ("ka",)),
)
"""Characters of a script -> the languages of the table that are written in it. All others are Latin."""
EAST_ASIAN = re.compile(f"[{''.join(characters for characters, _ in _SCRIPTS[:3])}]+")
"""Runs of Chinese, Japanese and Korean characters, which `CJK` makes pairs of."""
_IN_SCRIPT = tuple((re.compile(f"[{characters}]"), languages) for characters, languages in _SCRIPTS)
_NOT_LATIN = frozenset(language for _, languages in _SCRIPTS for language in languages or ())
_LATIN = frozenset(ANALYZERS) - _NOT_LATIN | {"sr", "az"}
_LETTER = re.compile(r"[^\W\d_]")
_IN_LATIN = re.compile(r"[A-Za-zÀ-ɏḀ-ỿ]")
_UNCERTAIN = {"ckb"}
"""Languages of the table that the detector does not know."""


class Guess(NamedTuple):
    """Detected language of a text: its code, or None if it is not certain, and the detector's confidence (0..1)."""

    language: str | None
    confidence: float


def parse_languages(value: str) -> tuple[str, ...]:
    """Return the codes of a list such as ``en,de,zh``, each once.

    Raises:
        ValueError: a code is not in the table.
    """
    codes = tuple(dict.fromkeys(base_language(part.strip()) for part in value.split(",") if part.strip()))
    if unknown := [code for code in codes if code not in ANALYZERS]:
        raise ValueError(
            f"{', '.join(repr(code[:20]) for code in unknown)} is not a language that can be analysed; "
            f"write two-letter codes separated by commas, of {', '.join(sorted(ANALYZERS))}"
        )
    return codes


def base_language(tag: str) -> str:
    """Return the language of a tag without script and region, as the table has it: ``zh`` of ``zh-Hant``."""
    code = tag.lower().partition("-")[0]
    return SAME.get(code, code)


def detect(text: str, otherwise: Guess | None = None) -> Guess:
    """Return the language of a passage or document; `otherwise` if that is certain and this is not.

    Two samples of a long `text` are read, which must agree. Numbers, codes, emoji, mixed scripts and lists of names
    have no certain language.
    """
    half = len(text) // 2
    samples = [text] if half <= _SAMPLE else [text[:_SAMPLE], text[half : half + _SAMPLE]]
    guesses = [_detect(sample) for sample in samples]
    confidence = min(guess.confidence for guess in guesses)
    language = guesses[0].language if len({guess.language for guess in guesses}) == 1 else None
    found = Guess(language, confidence)
    if found.language is None and otherwise is not None and otherwise.language is not None:
        return otherwise
    return found


def _detect(sample: str) -> Guess:
    if _LETTER.search(sample) is None or _is_mixed(sample):
        return Guess(None, 0.0)
    language, confidence = _detector().classify(sample)
    known = SAME.get(language, language)
    return Guess(known if confidence >= CERTAIN and known != "zxx" else None, round(confidence, 3))


class QueryLanguages:
    """Guesses the languages that a query may be in, among those of the settings. Thread-safe."""

    def __init__(self, languages: Iterable[str]) -> None:
        """Create the guesser; it loads the detector (90 MB, 2 s) if two of `languages` share a script."""
        self._languages = tuple(dict.fromkeys(languages))
        self._detectors: dict[tuple[str, ...], LanguageIdentifier] = {}
        for of_script in (*(languages for _, languages in _SCRIPTS if languages), tuple(sorted(_LATIN))):
            candidates = self._within(of_script)
            if len(candidates) > 1 and _UNCERTAIN.isdisjoint(candidates):
                self._detectors[candidates] = _restricted(candidates)

    def guess(self, query: str) -> tuple[str, ...]:
        """Return the languages to search in, best first; empty if none of the settings fits.

        The script decides first: short queries are hard, and most pairs of languages differ in it.
        """
        if _LETTER.search(query) is None:
            return ()
        candidates = self._within(_languages_of_script(query))
        detector = self._detectors.get(candidates)
        if detector is None:
            return candidates[:_MOST]
        language, confidence = _detector().classify(query)
        if confidence >= _CERTAIN_QUERY and base_language(language) not in candidates:
            return ()
        ranked = detector.rank(query)
        if ranked[0][1] >= _CERTAIN_QUERY:
            return (ranked[0][0],)
        return tuple(language for language, confidence in ranked if confidence >= _POSSIBLE)[:_MOST]

    def _within(self, languages: Iterable[str]) -> tuple[str, ...]:
        there = frozenset(languages)
        return tuple(language for language in self._languages if language in there)


def _languages_of_script(text: str) -> Iterable[str]:
    letters = len(_LETTER.findall(text))
    counts = [(len(pattern.findall(text)), languages) for pattern, languages in _IN_SCRIPT]
    if counts[0][0]:  # Japanese is mostly written in Chinese characters, Chinese never in kana
        counts[0] = (counts[0][0] + counts[2][0], counts[0][1])
    count, languages = max(counts, key=lambda item: item[0])
    return languages if languages and count and count >= _OTHER_SCRIPT * letters else _LATIN


def _is_mixed(text: str) -> bool:
    """Return whether a good part of the text is in scripts other than Latin, and none of them has most of it."""
    others = len(_LETTER.findall(text)) - len(_IN_LATIN.findall(text))
    if others < _OTHER_SCRIPT * len(text):
        return False
    counts = [len(pattern.findall(text)) for pattern, _ in _IN_SCRIPT]
    # Japanese and Korean are written in several; Ethiopic, Khmer and others are not in the table
    parts = [sum(counts[:3]), *counts[3:], others - sum(counts)]
    return max(parts) < _MAIN_SCRIPT * others


@cache
def _detector() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # 2 s, and most services search one language

    found = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # varieties of few or no own texts take the likelihood of their neighbours (Cantonese of Chinese)
    found.set_languages([code for code in found.labels if len(code) == 2 or code == "zxx"])
    return found


def _restricted(languages: Sequence[str]) -> LanguageIdentifier:
    found = copy.copy(_detector())
    found.set_languages(languages)
    return found
