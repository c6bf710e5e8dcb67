"""Citation marks in an answer, and the quotes that support them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from app.generation.content_words import content_words
from app.passage import Hit
from app.sentences import sentence_spans

_OPEN, _CLOSE = "[【", "]】"
_LONGEST = 32
_INSIDE = re.compile(r"[\s\d,;and&†:–-]*")
_LONGEST_QUOTE = 600


@dataclass(frozen=True, slots=True)
class Citation:
    """A citation; `marker` is the n of ``[n]``: the passage's position in the results, from 1.

    `quote` is verbatim from the passage `id`: the result, or a neighbour shown with it. `page` is that passage's.
    """

    marker: int
    id: str
    document_id: str
    quote: str
    page: int | None = None

    @classmethod
    def of(cls, marker: int, hit: Hit, quote: str) -> Citation:
        return cls(marker, hit.id, hit.document_id, quote, hit.page)


class MarkFilter:
    """Filters a streamed answer, holding back possible marks until they are known to name a passage.

    ``[1, 2]`` and ``【1】`` become ``[1][2]`` and ``[1]``; a mark that names no given passage is removed and counted.
    """

    def __init__(self, passages: int) -> None:
        self._passages = passages
        self._held = ""
        self._last = ""
        self.dropped: list[str] = []

    def feed(self, text: str) -> str:
        """Return the part of the answer so far that can be shown now."""
        shown = []
        for character in text:
            if self._held:
                self._held += character
                if character in _CLOSE:
                    shown.append(self._resolve())
                    self._last = (self._last + shown[-1])[-1:]
                elif len(self._held) > _LONGEST or not _INSIDE.fullmatch(self._held[1:]):
                    held, self._held = self._held[:-1], ""
                    self._last = held[-1]
                    shown += [held, self.feed(character)]
            elif character in _OPEN:
                self._held = character
            else:
                shown.append(character)
                self._last = character
        return "".join(shown)

    def finish(self) -> str:
        """Return the rest at the end of the answer: an open bracket that never became a mark."""
        held, self._held = self._held, ""
        return held

    def _resolve(self) -> str:
        mark, self._held = self._held, ""
        numbers = [int(number) for number in re.findall(r"\d+", mark)]
        if not numbers:
            return mark
        good = [number for number in dict.fromkeys(numbers) if 1 <= number <= self._passages]
        if len(good) < len(set(numbers)):
            self.dropped.append(mark)
        # the space keeps what is left of "[[9]9]" from becoming a mark itself
        parted = " " if not good and (self._last == "[" or self._last.isdigit()) else ""
        return parted + "".join(f"[{number}]" for number in good)


def cite(answer: str, passages: Sequence[Sequence[Hit]]) -> list[Citation]:
    """Return a citation for each passage that `answer` (already filtered) marks, in the order of the marks.

    The quote is the sentence that shares most words with the marked statements; rare words count more.

    Args:
        passages: by marker, from 1: the result, and the neighbours shown with it.
    """
    statements: dict[int, list[str]] = {}
    for start, end, _ in sentence_spans(answer):
        sentence = answer[start:end]
        for number in re.findall(r"\[(\d+)\]", sentence):
            statements.setdefault(int(number), []).append(re.sub(r"\[\d+\]", " ", sentence))
    found = []
    for marker, said in statements.items():
        if 1 <= marker <= len(passages):
            hits = passages[marker - 1]
            place, quote = _best_quote(" ".join(said), [(hit.text, hit.text_language) for hit in hits])
            found.append(Citation.of(marker, hits[place], quote))
    return found


def best_quote(statement: str, text: str, language: str | None = None) -> str:
    """Return the sentence of `text`, verbatim, that shares most words with `statement`; cut at a word if very long."""
    return _best_quote(statement, [(text, language)])[1]


def _best_quote(statement: str, texts: Sequence[tuple[str, str | None]]) -> tuple[int, str]:
    """Return the best sentence of `texts` (with their languages) and the index of its text; the first text on a tie."""
    sentences = [
        (place, text[start:end])
        for place, (text, language) in enumerate(texts)
        for start, end, _ in sentence_spans(text, language)
    ]
    words = [set(content_words(sentence)) for _, sentence in sentences]
    frequency = Counter(word for group in words for word in group)
    asked = set(content_words(statement))

    def overlap(index: int) -> float:
        shared = sum(1 / frequency[word] for word in words[index] & asked)
        return shared / math.sqrt(len(words[index]) + 5)

    best = max(range(len(sentences)), key=lambda index: (overlap(index), -index), default=None)
    if best is None:
        return 0, ""
    place, quote = sentences[best]
    if len(quote) > _LONGEST_QUOTE:
        quote = quote[: quote.rfind(" ", 0, _LONGEST_QUOTE) if " " in quote[:_LONGEST_QUOTE] else _LONGEST_QUOTE]
    return place, quote
