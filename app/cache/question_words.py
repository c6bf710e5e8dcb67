"""The word lists behind `question`: ``question_words.toml``, made into what its rules look up."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

Sequences = list[tuple[str, ...]]


class Words:
    """One attribute for each list; the file says what each is for."""

    def __init__(self, lists: Mapping[str, Any]) -> None:
        frames, nouns, function = lists["frames"], lists["nouns"], lists["function"]
        self.greeting, self.courtesy = _set(frames["greeting"]), _set(frames["courtesy"])
        self.closing = _sequences(frames["closing"])
        self.lead, self.ask = _sequences(frames["lead"]), _sequences(frames["ask"])
        self.ask_before = _sequences(frames["ask_before"])
        self.asked = frozenset(_items(frames["asked"]))
        self.mentioned = _set(frames["mentioned"])

        self.phrases = {
            tuple(other.split()): tuple(first.split())
            for first, *others in _groups(lists["phrases"]["groups"])
            for other in others
        }
        self.longest_phrase = max(map(len, self.phrases))
        self.bare = {bare: tuple(spelt) for bare, *spelt in map(str.split, _items(lists["spelt"]["bare"]))}
        synonyms = lists["synonyms"]
        self.same = {
            o: first for key in ("groups", "spelling") for first, *others in _groups(synonyms[key]) for o in others
        }
        self.same |= {word[:-2] + "our": word for word in synonyms["our"].split()}

        numbers = lists["numbers"]
        self.numbers = {word: str(count) for count, word in enumerate(numbers["words"].split(), start=2)}
        self.numbers |= {
            word: str(tens) for tens, word in zip(range(30, 100, 10), numbers["tens"].split(), strict=True)
        }
        self.ordinals = {word: _ordinal(count) for count, word in enumerate(numbers["ordinals"].split(), start=1)}
        names = numbers["months"].split()
        self.months = {name: name for name in names} | {name[:3]: name for name in names} | {"sept": "september"}
        self.units = {other: first for first, *others in _groups(numbers["units"]) for other in (first, *others)}

        self.irregular = dict(pair.split() for pair in _items(lists["plurals"]["irregular"]))
        self.no_plurals = _set(lists["plurals"]["kept"])
        verbs = lists["verbs"]
        self.verbs, self.noun_like = (
            frozenset(self.same.get(word, word) for word in verbs[key].split()) for key in ("first", "noun_like")
        )
        self.marks = _set(verbs["marks"])
        self.containers, self.lettered = _set(nouns["containers"]), _set(nouns["lettered"])
        self.topics, self.leading = _set(nouns["topics"]), _set(nouns["leading"])
        self.dropped = _set(lists["dropped"]["always"])
        self.strong = _set(lists["english"]["strong"])
        self.foreign = _set(lists["english"]["foreign"]) - self.strong

        self.articles, self.persons = _set(function["articles"]), _set(function["persons"])
        self.fronted = _set(function["fronted"])
        self.asks, self.auxiliaries, self.how = (
            _set(function["asks"]),
            _set(function["auxiliaries"]),
            _set(function["how"]),
        )
        self.wh = self.asks | {"what", "which", "how"}
        self.openers = self.wh | self.auxiliaries | self.asked | {"i", "please", "kindly"}
        self.function = self.articles | self.asks | self.auxiliaries | _set(function["others"])
        self.acronyms = _set(function["acronyms"])


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.replace("\n", " ").split("|") if item.strip()]


def _groups(text: str) -> list[list[str]]:
    return [[item.strip() for item in line.split("|")] for line in text.splitlines() if line.strip()]


def _sequences(text: str) -> Sequences:
    """The longest first, so that the first that fits is the longest that does."""
    return sorted((tuple(item.split()) for item in _items(text)), key=len, reverse=True)


def _ordinal(count: int) -> str:
    return f"{count}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(count, 'th') }"


WORDS = Words(tomllib.loads(files("app.cache").joinpath("question_words.toml").read_text(encoding="utf-8")))
