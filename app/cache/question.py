"""A query read for what it asks: a canonical sequence of words, so that two that ask the same come out equal.

Rules, no model. What may be dropped or folded is listed (``question_words.toml``) and small; every other word stays,
in its order. English only: of a query that is not clearly English nothing is dropped but case, white space and the
punctuation around words.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

MAX_CHARACTERS = 512
"""Longer queries are not read: they differ from every other."""

_QUOTED = re.compile(r"\"([^\"]{1,200})\"|(?<![\w'])'([^']{2,200})'(?![\w'])")
_MARKS = str.maketrans({**dict.fromkeys("“”„«»‟″", '"'), **dict.fromkeys("‘’‚‛`´′", "'"), **dict.fromkeys("‐‑–—−", "-")})
_KEPT_BEFORE = frozenset('"#%&@/\\*_')
_KEPT_BEHIND = frozenset('"#%&@/*_')
_HYPHENED = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)+")
_AMOUNT = re.compile(r"([$€£¥]?)(-?\d[\d,]*(?:\.\d+)?)([^\W\d_]{1,12}|%|°[a-z])?")
_GROUPED = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_IZE = re.compile(r"is(e|ed|es|er|ing|ation)$")
_DAY = re.compile(r"([12]?\d|3[01])(?:st|nd|rd|th)?")
_CLITICS = {"'re": "are", "'ve": "have", "'ll": "will", "'m": "am", "'d": "would"}
_IS_BEFORE_S = frozenset("what who where when why how that there it he she here let which".split())
_ASKS = frozenset("who whom whose when where why".split())
_AUXILIARIES = frozenset("is are am was were do does did can could may might must should shall will would has have had".split())
_HOW_MUCH = frozenset(
    "many much long often far old tall high deep wide big large heavy fast quickly soon late early thick strong good well".split()
)
_PERSONS = frozenset("i we you one".split())
_NOT_NAMES = frozenset("and or to in at on by from with without for as than versus vs not no between".split())
_ARTICLES = frozenset("a an the".split())
_FUNCTION = _NOT_NAMES | _ARTICLES | _AUXILIARIES | _ASKS | frozenset(
    """of into onto out off over under above below before after during since until till within against about through
    across per like but if unless because while so that this these those there which what how i you he she it we they
    me him them his her their my your our its all any some every each both either neither none only also even just
    more most less least few fewer many much several same other another such very too never always ever now then up
    down again once here be been being have has had""".split()  # noqa: SIM905 - a list of words
)
"""Words that make the frame of a sentence; two of them are never each other's counterpart."""
_NO_PLURAL = ("ss", "us", "is", "ics", "as", "os")
_PLURAL_ES = ("sses", "xes", "ches", "shes", "zzes")
_CONTAINERS = frozenset("cup glass bottle can box bag piece slice kind type sort number lot pair lack series".split())


@dataclass(frozen=True, slots=True)
class Question:
    """A query as it was read.

    `kind` is what it asks for (``who``, ``how many``, ``is`` of a yes-or-no question, "" of a plain subject); `words`
    are what it asks about; `quoted` and `past` what the names say; `english` whether the rules of English were used;
    `plain` the words in their order as they were written, lower-cased; `names` those written with a capital inside.
    """

    kind: str
    words: tuple[str, ...]
    quoted: tuple[str, ...]
    past: bool
    english: bool
    plain: tuple[str, ...]
    names: frozenset[str]


@lru_cache(maxsize=4096)
def read_question(text: str) -> Question | None:
    """Read `text`; None where there is nothing in it, or more than `MAX_CHARACTERS`. Never fails."""
    if len(text) > MAX_CHARACTERS:
        return None
    text = unicodedata.normalize("NFKC", text).translate(_MARKS)
    quoted = tuple(" ".join((a or b).casefold().split()) for a, b in _QUOTED.findall(text))
    chunks = [chunk for chunk in (_trim(part) for part in _mark_quoted(text).split()) if chunk]
    if not chunks:
        return None
    plain = tuple(chunk.casefold() if not chunk.startswith("-") else chunk for chunk in chunks)
    english = _is_english(plain)
    if not english:
        return Question("", plain, quoted, past=False, english=False, plain=plain, names=frozenset())
    shouting = text.upper() == text
    names = frozenset(
        chunk.casefold()
        for place, chunk in enumerate(chunks)
        if not shouting and any(character.isupper() for character in (chunk if place else chunk[1:]))
    )
    words = _expand(chunks, shouting)
    words = _phrases(words)
    words = _without_frames(words)
    kind, words, past = _kind(words)
    dropped = _dropped(plain)
    words = _of(_numbers(words), dropped)
    words = _phrases([word for word in words if word not in dropped])
    proper = frozenset() if _is_title(chunks) else names
    kind, words = _how_to(kind, [word if word in proper else _folded(word) for word in words])
    return Question(kind, tuple(_sorted_pair(words)), quoted, past=past, english=True, plain=plain, names=names)


def _is_title(chunks: list[str]) -> bool:
    """Whether capitals say nothing: every word that is not small has one."""
    return all(not chunk[:1].islower() for chunk in chunks if is_content(chunk.casefold()))


class _Words:
    """The lists of ``question_words.toml``, made into what the rules look up."""

    def __init__(self, lists: Mapping[str, Any]) -> None:
        frames, phrases, synonyms = lists["frames"], lists["phrases"], lists["synonyms"]
        self.polite = _sequences(frames["polite"])
        self.lead = _sequences(frames["lead"])
        self.ask = _sequences(frames["ask"])
        self.asked = frozenset(_items(frames["asked"]))
        self.phrases = {
            tuple(other.split()): tuple(first.split())
            for first, *others in _groups(phrases["groups"])
            for other in others
        }
        self.longest = max(map(len, self.phrases))
        self.same = {
            other: first
            for key in ("groups", "spelling")
            for first, *others in _groups(synonyms[key])
            for other in others
        }
        self.same |= {word[:-2] + "our": word for word in synonyms["our"].split()}
        self.same |= {"neighbourhood": "neighborhood"}
        numbers = lists["numbers"]
        self.numbers = {
            word: str(number if number == 0 else number + 1) for number, word in enumerate(numbers["words"].split())
        }
        self.numbers |= {word: str(30 + 10 * number) for number, word in enumerate(numbers["tens"].split())}
        self.ordinals = {word: _ordinal(number) for number, word in enumerate(numbers["ordinals"].split(), start=1)}
        self.months = {name: name for name in numbers["months"].split()}
        self.months |= {name[:3]: name for name in self.months} | {"sept": "september"}
        self.units = {other: first for first, *others in _groups(numbers["units"]) for other in [first, *others]}
        self.irregular = dict(pair.split() for pair in _items(lists["plurals"]["irregular"]))
        self.kept = frozenset(lists["plurals"]["kept"].split())
        self.verbs = frozenset(_same_words(lists["verbs"]["first"].split(), self.same))
        self.topics = frozenset(lists["nouns"]["topics"].split())
        self.leading = frozenset(lists["nouns"]["leading"].split())
        self.always = frozenset(lists["dropped"]["always"].split())
        self.strong = frozenset(lists["english"]["strong"].split())
        self.foreign = frozenset(lists["english"]["foreign"].split()) - self.strong
        self.opposites = frozenset(frozenset(pair.split()) for pair in _items(lists["opposites"]["pairs"]))
        self.prefixes = lists["opposites"]["prefixes"].split()


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.replace("\n", " ").split("|") if item.strip()]


def _groups(text: str) -> list[list[str]]:
    return [[item.strip() for item in line.split("|")] for line in text.splitlines() if line.strip()]


def _sequences(text: str) -> list[tuple[str, ...]]:
    return sorted((tuple(item.split()) for item in _items(text)), key=len, reverse=True)


def _same_words(words: list[str], same: Mapping[str, str]) -> list[str]:
    return [same.get(word, word) for word in words]


def _ordinal(number: int) -> str:
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number, 'th')}"


def _load() -> _Words:
    return _Words(tomllib.loads(files("app.cache").joinpath("question_words.toml").read_text(encoding="utf-8")))


_WORDS = _load()


def are_opposites(first: str, second: str) -> bool:
    """Whether two words are listed as opposites, or one is the other with a negating syllable in front."""
    if frozenset((first, second)) in _WORDS.opposites:
        return True
    short, long = sorted((first, second), key=len)
    return any(long == prefix + short for prefix in _WORDS.prefixes)


def is_content(word: str) -> bool:
    """Whether a word of a question names something, other than holding the sentence together."""
    return word not in _FUNCTION


def _trim(part: str) -> str:
    """`part` without the punctuation around it; letters, marks of letters, digits and symbols stay."""
    start, end = 0, len(part)
    while start < end and _is_edge(part[start], _KEPT_BEFORE):
        if part[start] in ".-" and part[start + 1 : start + 2].isalnum() and not (start and part[start - 1] in ".-"):
            break  # .NET, -1, -r
        start += 1
    while end > start and _is_edge(part[end - 1], _KEPT_BEHIND):
        end -= 1
    return part[start:end]


def _is_edge(character: str, kept: frozenset[str]) -> bool:
    return unicodedata.category(character).startswith("P") and character not in kept


def _mark_quoted(text: str) -> str:
    """`text` with each quoted phrase made one chunk that equals only itself."""
    return _QUOTED.sub(lambda match: ' "' + "_".join((match[1] or match[2]).casefold().split()) + '" ', text)


def _is_english(plain: tuple[str, ...]) -> bool:
    foreign_letters = [c for word in plain if not word.isascii() for c in word if c.isalpha() and not c.isascii()]
    if any(not unicodedata.name(c, "").startswith("LATIN") for c in foreign_letters):
        return False
    pieces = {piece for word in plain for piece in word.split("'")}
    english, foreign = len(pieces & _WORDS.strong), len(pieces & _WORDS.foreign)
    return english >= 2 * foreign + bool(foreign_letters)


def _dropped(plain: tuple[str, ...]) -> frozenset[str]:
    """What carries nothing; hardly anything where only the want of other signs says that the query is English."""
    pieces = {piece for word in plain for piece in word.split("'")}
    return _WORDS.always if pieces & _WORDS.strong else _ARTICLES


def _expand(chunks: list[str], shouting: bool) -> list[str]:
    """Lower-cased words: contractions written out, compounds taken apart, acronyms that look like small words marked."""
    words: list[str] = []
    for chunk in chunks:
        word = chunk.casefold()
        if chunk.startswith(("-", '"')):
            words.append(chunk)
        elif not shouting and len(chunk) >= 2 and chunk.isupper() and (word in _FUNCTION or word in ("aids", "us")):
            words.append(chunk)
        elif "'" in word:
            words.extend(_contraction(word))
        elif _HYPHENED.fullmatch(word):
            words.extend(word.split("-"))
        elif word == "cannot":
            words.extend(("can", "not"))
        elif word == "&":
            words.append("and")
        else:
            words.append(word)
    return words


def _contraction(word: str) -> list[str]:
    if word in ("can't", "won't", "shan't", "ain't"):
        return [{"c": "can", "w": "will", "s": "shall", "a": "is"}[word[0]], "not"]
    if word.endswith("n't"):
        return [word[:-3], "not"]
    head, mark, tail = word.rpartition("'")
    if mark + tail in _CLITICS and head:
        return [*_contraction(head), _CLITICS[mark + tail]] if "'" in head else [head, _CLITICS[mark + tail]]
    if tail == "s" and head:
        return [head, "is"] if head in _IS_BEFORE_S else [head]
    return [head] if not tail and head else [word]


def _phrases(words: list[str]) -> list[str]:
    found: list[str] = []
    place = 0
    while place < len(words):
        for length in range(min(_WORDS.longest, len(words) - place), 0, -1):
            same = _WORDS.phrases.get(tuple(words[place : place + length]))
            if same is not None:
                found.extend(same)
                place += length
                break
        else:
            found.append(words[place])
            place += 1
    return found


def _without_frames(words: list[str]) -> list[str]:
    """Without politeness and "tell me", as long as something is left to ask."""
    changed = True
    while changed and len(words) > 1:
        changed = False
        for sequences, front in ((_WORDS.polite, True), (_WORDS.polite, False), (_WORDS.ask, True)):
            for sequence in sequences:
                size = len(sequence)
                part = tuple(words[:size] if front else words[-size:])
                if part == sequence and len(words) > size:
                    words = words[size:] if front else words[:-size]
                    changed = True
                    break
        for sequence in _WORDS.lead:
            size = len(sequence)
            rest = [word for word in words[size : size + 2] if word != "please"]
            if tuple(words[:size]) == sequence and rest and rest[0] in _WORDS.asked:
                words = words[size:]
                changed = True
                break
    return words


def _kind(words: list[str]) -> tuple[str, list[str], bool]:  # noqa: PLR0912 - one table of openings
    """What is asked for, the words without what said so, and whether it was in the past."""
    lead: list[str] = []
    if len(words) > 2 and words[0] in ("in", "at", "for", "by", "from", "to", "since", "until", "with", "on", "of") and (
        words[1] in _ASKS or words[1] in ("what", "which", "how")
    ):
        lead, words = words[:1], words[1:]
    first, rest = words[0], words[1:]
    past = False
    kind = ""
    if first in _ASKS:
        kind = first
    elif first in ("what", "which"):
        kind = "what"
        if rest and rest[0] in ("time", "year"):
            kind, rest = f"what {rest[0]}", rest[1:]
    elif first == "how":
        kind = "how"
        if rest and rest[0] in _HOW_MUCH:
            kind, rest = f"how {rest[0]}", rest[1:]
        elif rest and rest[0] == "to":
            rest = rest[1:]
    elif first in _AUXILIARIES and rest:
        kind = {"are": "is", "am": "is", "were": "was", "does": "do", "has": "have"}.get(first, first)
        if kind == "could" and rest[0] in _PERSONS:
            kind = "can"
        return kind, [*lead, *(_drop_there(rest) if kind in ("is", "was") else rest)], past
    elif first == "define" and rest:
        return "", [*rest, "definition"], past
    else:
        return "", words, past
    if kind == "how" and len(rest) > 2 and rest[0] in ("do", "can", "could", "would", "does", "might") and rest[1] in _PERSONS:
        rest = rest[2:]
    elif kind == "where" and len(rest) > 1 and rest[0] == "to":
        rest = rest[1:]
    elif kind == "where" and len(rest) > 2 and rest[0] in ("do", "can", "could", "does") and rest[1] in _PERSONS:
        rest = rest[2:]
    if kind in ("how", "where"):
        rest = [word for word in rest if word not in ("my", "your", "our")]
    if "did" in rest or "was" in rest or "were" in rest:
        past = True
        rest = [word for word in rest if word not in ("did", "was", "were")]
    if not lead and not past:
        kind, rest = _subject(kind, rest)
    return kind, [*lead, *_drop_there(rest)], past


def _subject(kind: str, rest: list[str]) -> tuple[str, list[str]]:
    """Questions that only name a subject, and so ask the same as the subject alone."""
    if len(rest) < 2:
        return kind, rest
    does = next((place for place, word in enumerate(rest) if word in ("do", "does")), None)
    if kind == "what" and rest[0] in ("is", "are"):
        return "", [word for place, word in enumerate(rest[1:]) if not (word == "your" and place == 0)]
    if kind == "what" and rest[-1] in ("is", "are") and does is None:
        return "", rest[:-1]  # "tell me what X is"
    if kind == "what" and rest[-1] not in ("is", "are") and "there" in rest[2:]:
        at = rest.index("there")
        return ("", rest[: at - 1] + rest[at + 1 :]) if rest[at - 1] in ("is", "are") else (kind, rest)
    if kind == "when" and rest[-1] in ("open", "close", "opens", "closes"):
        return "what time", rest
    if kind in ("what", "how much") and rest[-1] == "cost" and does == 0:
        return "", rest[1:]  # the X cost
    if kind == "what" and rest[-1] == "mean" and does == 0:
        return "", [*rest[1:-1], "definition"]
    if kind == "what" and rest[-1] == "have" and does and len(rest) - does > 2 and rest[does + 1] not in _PERSONS:
        return "", [*rest[does + 1 : -1], *rest[:does]]  # "what symptoms does X have"
    return kind, rest


def _drop_there(words: list[str]) -> list[str]:
    return [word for word in words if word != "there"]


def _numbers(words: list[str]) -> list[str]:
    """Numbers, units and days of a month in one spelling."""
    found: list[str] = []
    for word in words:
        match = _AMOUNT.fullmatch(word)
        number = _WORDS.numbers.get(word)
        if number is not None:
            found.append(number)
        elif word in _WORDS.ordinals and not (word == "second" and found and _is_number(found[-1])):
            found.append(_WORDS.ordinals[word])
        elif found and _is_number(found[-1]) and word in _WORDS.units:
            found.append(_WORDS.units[word])
        elif match and (match[1] or match[3] in _WORDS.units or _GROUPED.fullmatch(word)):
            digits = match[2].replace(",", "") if _GROUPED.fullmatch(match[2]) else match[2]
            found.append(digits)
            found.extend(_WORDS.units[unit] for unit in (match[1], match[3]) if unit in _WORDS.units)
            if match[3] and match[3] not in _WORDS.units:
                found[-1] = f"{found[-1]} {match[3]}"
        else:
            found.append(word)
    return _dates(found)


def _is_number(word: str) -> bool:
    return word.replace(".", "", 1).replace(",", "").lstrip("-").isdigit()


def _dates(words: list[str]) -> list[str]:
    place = 0
    while place < len(words):
        month = _WORDS.months.get(words[place])
        if month is not None:
            before = words[place - 1] if place else ""
            earlier = words[place - 2] if place > 1 else ""
            after = words[place + 1] if place + 1 < len(words) else ""
            if before == "of" and _DAY.fullmatch(earlier):
                words[place - 2 : place + 1] = [_day(earlier), month]
                place -= 1
            elif _DAY.fullmatch(before):
                words[place - 1 : place + 1] = [_day(before), month]
            elif _DAY.fullmatch(after):
                words[place : place + 2] = [_day(after), month]
                place += 1
            elif len(after) == 4 and after.isdigit():
                words[place] = month
        place += 1
    return words


def _day(text: str) -> str:
    match = _DAY.fullmatch(text)
    return match[1] if match else text


@lru_cache(maxsize=8192)
def _folded(word: str) -> str:
    """One word in one spelling, its plural as its singular."""
    if not word.isalpha() or not word.islower():
        return _WORDS.same.get(word, word)
    word = _WORDS.same.get(word, word)
    word = _WORDS.irregular.get(word, word)
    if word not in _WORDS.kept and len(word) >= 4 and not word.endswith(_NO_PLURAL):
        if word.endswith("ies") and len(word) > 4:
            word = word[:-3] + "y"
        elif word.endswith(_PLURAL_ES):
            word = word[:-2]
        elif word.endswith("s"):
            word = word[:-1]
    word = _IZE.sub(r"iz\1", word) if len(word) > 5 else word
    return _WORDS.same.get(word, word)


def _of(words: list[str], dropped: frozenset[str]) -> list[str]:
    """ "policy of returns" as "returns policy"; left alone where there is more than one "of"."""
    hinges = [place for place, word in enumerate(words) if word == "of"]
    if not hinges:
        hinges = [p for p, word in enumerate(words) if word == "for" and p and _folded(words[p - 1]) in _WORDS.topics]
    if len(hinges) != 1:
        return words
    at = left = hinges[0]
    while left > 0 and is_content(words[left - 1]):
        left -= 1
    while left < at and words[left] in _WORDS.leading:
        left += 1
    start = at + 1
    while start < len(words) and words[start] in dropped:
        start += 1
    right = start
    while right < len(words) and is_content(words[right]):
        right += 1
    owned, owner = words[left:at], words[start:right]
    if not owned or not owner or _folded(owned[-1]) in _CONTAINERS or any(c.isdigit() for word in owned for c in word):
        return words
    return [*words[:left], *owner, *owned, *words[right:]]


def _how_to(kind: str, words: list[str]) -> tuple[str, list[str]]:
    """ "install X" and "installing X" ask how to, where the first word can be nothing but a verb."""
    if kind in ("", "how") and len(words) > 1:
        first = words[0]
        stem = first[:-3] if first.endswith("ing") else first
        for verb in (stem, stem + "e", stem[:-1]):
            if verb in _WORDS.verbs and (first == verb or stem != first):
                return "how", [verb, *words[1:]]
    return kind, words


def _sorted_pair(words: list[str]) -> list[str]:
    """ "difference between A and B", "A vs B": in one order, since either asks the same."""
    if words.count("between") == 1 and words.count("and") == 1 and "difference" in words:
        at, mid = words.index("between"), words.index("and")
        first, second = words[at + 1 : mid], words[mid + 1 :]
        if words[at - 1] == "difference" and first and second and all(is_content(word) for word in first + second):
            first, second = sorted((first, second))
            return [*words[: at + 1], *first, "and", *second]
    if words.count("vs") == 1:
        at = words.index("vs")
        first, second = sorted((words[:at], words[at + 1 :]))
        if first and second and all(is_content(word) for word in first + second):
            return [*first, "vs", *second]
    return words
