"""Real queries with one change that makes another question: what the gate of the near-identical cache lets pass."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from app.cache.question import is_content, read_question
from app.cache.question_words import WORDS
from app.cache.same_question import differs
from benchmarks import harness

FILES = (
    "squad2dev/queries",
    "squad2dev/unanswerable",
    "covidqa/queries",
    "scifact/queries",
    "cranfield/queries",
    "awsdocs/queries",
)
PREPOSITIONS = [
    "of",
    "in",
    "on",
    "at",
    "for",
    "from",
    "to",
    "with",
    "without",
    "by",
    "after",
    "before",
    "under",
    "over",
    "about",
    "than",
    "into",
    "between",
    "through",
]
ASKING = ["who", "what", "when", "where", "why", "how"]


def queries() -> list[str]:
    """The distinct queries of the sets that are at hand, as far as the gate reads them."""
    texts: dict[str, None] = {}
    for name in FILES:
        path = harness.SETS / f"{name}.jsonl.gz"
        if path.is_file():
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                texts.update((json.loads(line)["text"], None) for line in lines)
    return [text for text in texts if read_question(text)]


def bare(word: str) -> str:
    return word.strip("?.,!\"'():;*").lower()


def content_places(words: list[str]) -> list[int]:
    """Where a word stands that must not be changed or left out."""
    return [
        place
        for place, word in enumerate(words)
        if any(map(str.isalnum, word)) and is_content(bare(word)) and bare(word) not in WORDS.dropped
    ]


def mutations(text: str, vocabulary: list[str], chance: random.Random) -> Iterator[tuple[str, str]]:
    """(kind, text) of each change that the query allows; one of each kind, at a random place."""
    words = text.split()
    content = content_places(words)

    def put(place: int, *new: str, instead: bool = True) -> str:
        return " ".join([*words[:place], *new, *words[place + instead :]])

    if content:
        yield "a word left out", put(chance.choice(content))
        yield "a word replaced", put(chance.choice(content), chance.choice(vocabulary))
        yield "a word more", put(chance.randrange(len(words)), chance.choice(vocabulary), instead=False)
    if len(content) > 1:
        at = chance.randrange(len(content) - 1)
        first, second = content[at], content[at + 1]
        changed = list(words)
        changed[first], changed[second] = words[second], words[first]
        if bare(words[first]) != bare(words[second]):
            yield "two words change places", " ".join(changed)
    yield "a not more", put(chance.randrange(len(words) + 1), "not", instead=False)
    for kind, group in (("another preposition", PREPOSITIONS), ("another question word", ASKING)):
        places = [place for place, word in enumerate(words) if word.lower() in group]
        if places:
            place = chance.choice(places)
            yield kind, put(place, chance.choice([word for word in group if word != words[place].lower()]))
    digit = re.search(r"\d", text)
    if digit:
        other = str((int(digit[0]) + chance.randint(1, 9)) % 10)
        yield "another digit", text[: digit.start()] + other + text[digit.end() :]


def run(show: bool) -> dict[str, Any]:
    """How many changed queries of each kind the gate takes for the query that they were made of."""
    texts = queries()
    vocabulary = sorted({w for text in texts for w in re.findall(r"[a-z]{3,}", text.lower()) if is_content(w)})
    vocabulary = [word for word in vocabulary if word not in WORDS.dropped]
    chance = random.Random(5)
    made: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for text in texts:
        for kind, changed in mutations(text, vocabulary, chance):
            made[kind] += 1
            if differs(text, changed) is None:
                passed[kind] += 1
                if show:
                    print(f"{kind} | {text} | {changed}")
    return {"queries": len(texts), "passed": {kind: f"{passed[kind]} of {made[kind]}" for kind in made}}
