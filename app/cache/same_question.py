"""Whether the answer to one query may be given to another: the gate of the cache for near-identical queries.

Similar vectors are no proof: "enable X" and "disable X", "from A to B" and "from B to A", 2022 and 2023 lie closer
together than most true paraphrases. So the rule is the other way round: two queries are the same only where every word
of either has its counterpart in the other, in the same order, and what each asks for (who, when, how many, can, must)
is the same. What is not clearly the same is different: that costs a search, the opposite mistake gives a wrong answer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from app.cache.question import Question, are_opposites, is_content, read_question

NEGATIONS = frozenset("not no never without none nor neither nothing nobody nowhere non except excluding unless".split())
MODAL = frozenset("can could may might must should shall will would need required allowed able have".split())


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the rules found.

    `reason` says why the two differ, None where they don't; `open` are the pairs of words that no rule can judge, at
    most `MOST_OPEN`: the queries are the same if a model says that these are, and only then.
    """

    reason: str | None
    open: tuple[tuple[str, str], ...] = ()


MOST_OPEN = 1


def differs(first: str, second: str) -> str | None:
    """Why the two queries are not the same question; None where the rules alone find that they are.

    The reason is a short stable code: ``empty``, ``language``, ``quoted``, ``codes``, ``numbers``, ``negation``,
    ``question``, ``modality``, ``tense``, ``order``, ``opposite``, ``words``. Symmetrical; never fails.
    """
    found = compare(first, second)
    return found.reason or ("words" if found.open else None)


def compare(first: str, second: str) -> Comparison:
    """The same with the pairs of words that are left for a model to judge."""
    one, other = read_question(first), read_question(second)
    if one is None or other is None:
        return Comparison("empty")
    if one.quoted != other.quoted:
        return Comparison("quoted")
    if not (one.english and other.english):
        if one.plain == other.plain:
            return Comparison(None)
        return Comparison(_difference(one, other) if one.english == other.english else "language")
    if one.words == other.words and one.kind == other.kind and one.past == other.past:
        return Comparison(None)
    left = _open_pairs(one, other)
    if left is not None:
        return Comparison(None, left)
    return Comparison(_difference(one, other))


def _open_pairs(one: Question, other: Question) -> tuple[tuple[str, str], ...] | None:
    """The pairs of words in the same places that differ, where all of them are for a model to judge."""
    if one.kind != other.kind or one.past != other.past or len(one.words) != len(other.words):
        return None
    pairs = tuple((a, b) for a, b in zip(one.words, other.words, strict=True) if a != b)
    if len(pairs) > MOST_OPEN or len(pairs) == len(one.words):
        return None
    names = one.names | other.names
    judged = all(
        is_content(word) and word.isalpha() and word.isascii() and word.islower() and len(word) >= 3 and word not in names
        for pair in pairs
        for word in pair
    )
    return pairs if judged and not any(are_opposites(a, b) for a, b in pairs) else None


def _difference(one: Question, other: Question) -> str:
    """The code of the first difference that tells most."""
    here, there = Counter(one.words), Counter(other.words)
    unlike = (here - there) + (there - here)
    if any(_has_digit(word) for word in unlike):
        letters = any(any(c.isalpha() for c in word) for word in unlike if _has_digit(word))
        return "codes" if letters else "numbers"
    if not NEGATIONS.isdisjoint(unlike):
        return "negation"
    if one.kind != other.kind:
        return "modality" if MODAL & {one.kind, other.kind} else "question"
    if one.past != other.past:
        return "tense"
    if not MODAL.isdisjoint(unlike):
        return "modality"
    if not unlike:
        return "order"
    if len(here - there) == len(there - here) == 1 and are_opposites(*unlike):
        return "opposite"
    return "words"


def _has_digit(word: str) -> bool:
    return any(character.isdigit() for character in word)
