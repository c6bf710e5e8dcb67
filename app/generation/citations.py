"""Citation marks in an answer, and the words of a passage that stand behind each."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from app.generation.words import content_words
from app.passage import Hit
from app.sentences import sentence_spans

_OPEN, _CLOSE = "[【", "]】"
_LONGEST = 32
_INSIDE = re.compile(r"[\s\d,;and&†:–-]*")
_LONGEST_QUOTE = 600


@dataclass(frozen=True, slots=True)
class Citation:
    """`marker` is the n of ``[n]``: the place of the passage in the results, from 1.

    `quote` is verbatim from the passage `id`: that result, or a neighbour that was shown with it. `page` is that
    passage's.
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
    """Lets an answer through piece by piece, holding back what may be a mark until it is known to name a passage.

    ``[1, 2]`` and ``【1】`` become ``[1][2]`` and ``[1]``; a mark that names no given passage is left out and counted.
    """

    def __init__(self, passages: int) -> None:
        self._passages = passages
        self._held = ""
        self.dropped: list[str] = []

    def feed(self, text: str) -> str:
        """What of the answer so far can be shown now."""
        shown = []
        for character in text:
            if self._held:
                self._held += character
                if character in _CLOSE:
                    shown.append(self._resolve())
                elif len(self._held) > _LONGEST or not _INSIDE.fullmatch(self._held[1:]):
                    held, self._held = self._held[:-1], ""
                    shown += [held, self.feed(character)]
            elif character in _OPEN:
                self._held = character
            else:
                shown.append(character)
        return "".join(shown)

    def finish(self) -> str:
        """The rest, at the end of the answer: an open bracket that never became a mark."""
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
        return "".join(f"[{number}]" for number in good)


def cite(answer: str, passages: Sequence[Sequence[Hit]]) -> list[Citation]:
    """One citation for each passage that `answer` (already filtered) marks, in the order of the marks.

    The quote is the sentence that shares most words with the statements marked, rare words counting more.

    Args:
        answer: as shown.
        passages: for each marker, from 1: its result, and the neighbours that were shown with it.
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
            place, quote = _best_quote(" ".join(said), [hit.text for hit in hits])
            found.append(Citation.of(marker, hits[place], quote))
    return found


def best_quote(statement: str, text: str) -> str:
    """The sentence of `text`, verbatim, that shares most words with `statement`; cut at a word when very long."""
    return _best_quote(statement, [text])[1]


def _best_quote(statement: str, texts: Sequence[str]) -> tuple[int, str]:
    """The best sentence of `texts`, and which text it is of; the first text where they are equally good."""
    sentences = [(place, text[start:end]) for place, text in enumerate(texts) for start, end, _ in sentence_spans(text)]
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
