"""Real queries with one change that makes another question: what the gate of the near-identical cache lets pass."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from app.cache.normal_form import differs, normal_form
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
SMALL = frozenset(
    """a an the who whom whose when where why is are am was were do does did can could may might must should shall will
    would have has had and or to in at on by from with without for as than versus vs not no between of into onto out off
    over under above below before after during since until till within against about through across per like but if
    unless because while so that this these those there which what how i you he she it we they me him them his her their
    my your our its all any some every each both either neither none only also even just more most less least few fewer
    many much several same other another such very too never always ever now then up down again once here be been being
    exactly actually really basically simply um uh erm umm uhm hmm""".split()  # noqa: SIM905 - 200 words
)
"""Words that hold a sentence together: leaving one out may not change what is asked."""
ASKING = ["who", "what", "when", "where", "why", "how"]


def queries() -> list[str]:
    """The distinct queries of the sets that are at hand, as far as the gate reads them."""
    texts: dict[str, None] = {}
    for name in FILES:
        path = harness.SETS / f"{name}.jsonl.gz"
        if path.is_file():
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                texts.update((json.loads(line)["text"], None) for line in lines)
    return [text for text in texts if normal_form(text)]


def bare(word: str) -> str:
    return word.strip("?.,!\"'():;*").lower()


def content_places(words: list[str]) -> list[int]:
    """Where a word stands that must not be changed or left out."""
    return [place for place, word in enumerate(words) if any(map(str.isalnum, word)) and bare(word) not in SMALL]


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
    vocabulary = sorted({w for text in texts for w in re.findall(r"[a-z]{3,}", text.lower()) if w not in SMALL})
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
