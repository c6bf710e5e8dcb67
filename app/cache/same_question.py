"""Whether the answer to one query may be given to another: the gate of the cache for near-identical queries.

Similar vectors are no proof: "enable X" and "disable X", "from A to B" and "from B to A", 2022 and 2023 lie closer
together than most true paraphrases, and so do the contextual vectors of the words that differ
(docs/near-queries.md). So the rule is the other way round: two queries are the same only where every word of either has
its counterpart in the other, in the same order, and what each asks for (who, when, how many, can, must) is the same.
What is not clearly the same is different: that costs a search, while the opposite mistake gives a wrong answer.
"""

from __future__ import annotations

from collections import Counter

from app.cache.entries import digest
from app.cache.question import Question, read_question

_NEGATIONS = frozenset(
    [
        "not",
        "no",
        "never",
        "without",
        "none",
        "nor",
        "neither",
        "nothing",
        "nobody",
        "nowhere",
        "non",
        "except",
        "excluding",
        "unless",
    ]
)
_MODAL = frozenset(
    [
        "can",
        "could",
        "may",
        "might",
        "must",
        "should",
        "shall",
        "will",
        "would",
        "need",
        "require",
        "required",
        "allowed",
        "able",
        "have",
    ]
)


def differs(first: str, second: str) -> str | None:
    """Why the two queries are not the same question; None where they are.

    The reason is a short stable code: ``unread`` (empty, or too long to be read), ``quoted``, ``language``, ``codes``,
    ``numbers``, ``negation``, ``question``, ``modality``, ``tense``, ``order``, ``words``. Symmetrical; never fails.
    """
    one, other = read_question(first), read_question(second)
    if one is None or other is None:
        return "unread"
    if one.quoted != other.quoted:
        return "quoted"
    if one.english != other.english:
        return "language"
    if one == other:
        return None
    return _difference(one, other)


def question_key(text: str) -> str | None:
    """A key that two queries share exactly where `differs` finds no difference; None where a query can't be read."""
    question = read_question(text)
    if question is None:
        return None
    return digest(ascii((question.kind, question.words, question.quoted, question.past, question.english)))


def _difference(one: Question, other: Question) -> str:
    """The code of the difference that tells most."""
    here, there = Counter(one.words), Counter(other.words)
    unlike = (here - there) + (there - here)
    numbered = [word for word in unlike if any(character.isdigit() for character in word)]
    if numbered:
        return "codes" if any(character.isalpha() for word in numbered for character in word) else "numbers"
    if not _NEGATIONS.isdisjoint(unlike):
        return "negation"
    if one.kind != other.kind:
        return "modality" if _MODAL & {one.kind, other.kind} else "question"
    if one.past != other.past:
        return "tense"
    if not _MODAL.isdisjoint(unlike):
        return "modality"
    return "words" if unlike else "order"
