"""A query read for what it asks: a canonical sequence of words, so that two that ask the same come out equal.

Rules, no model. What may be dropped or folded is listed (``question_words.toml``) and small; every other word stays,
in its order. English only: of a query that is not clearly English nothing is dropped but case, white space and the
punctuation around words.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from app.cache.question_numbers import plain_numbers
from app.cache.question_words import WORDS

MAX_CHARACTERS = 512
"""Longer queries are not read: they differ from every other."""

_QUOTED = re.compile(r"\"([^\"]{1,200})\"|(?<![\w'])'([^']{2,200})'(?![\w'])")
_MARKS = str.maketrans(
    {**dict.fromkeys("“”„«»‟″", '"'), **dict.fromkeys("‘’‚‛`´′", "'"), **dict.fromkeys("‐‑–—−", "-")}
)
_KEPT_BEFORE = frozenset('"#%&@/\\*_')
_KEPT_BEHIND = frozenset('"#%&@/*_')
_FRONTED = re.compile(r"\s*([^\W\d_]+\s[^,?!.;:\"]{2,80}),\s+([^,;:\"]+)", re.DOTALL)
_HYPHENED = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)+")
_IZE = re.compile(r"is(e|ed|es|er|ing|ation)$")
_CLITICS = {"'re": "are", "'ve": "have", "'ll": "will", "'m": "am", "'d": "would"}
_IS_BEFORE_S = WORDS.wh - {"whose"} | {"that", "there", "it", "he", "she", "here", "let"}
_PAST = frozenset(("did", "was", "were"))
_PRESENT = frozenset(("do", "does", "is", "are", "am"))
_NO_PLURAL = ("ss", "us", "is", "ics", "as", "os")
_PLURAL_ES = ("sses", "xes", "ches", "shes", "zzes")


@dataclass(frozen=True, slots=True)
class Question:
    """A query as it was read: equal ones ask the same.

    `kind` is what it asks for (``who``, ``how many``, ``is`` of a yes-or-no question, "" of a plain subject); `words`
    are what it asks about; `quoted` what stood in quotation marks; `past` whether it asks about the past; `english`
    whether the rules of English were used.
    """

    kind: str
    words: tuple[str, ...]
    quoted: tuple[str, ...]
    past: bool
    english: bool


def read_question(text: str) -> Question | None:
    """Read `text`; None where there is nothing in it, or more than `MAX_CHARACTERS`. Never fails."""
    return _read(text) if len(text) <= MAX_CHARACTERS else None  # so that none of those is kept, either


@lru_cache(maxsize=4096)
def _read(text: str) -> Question | None:
    text = unicodedata.normalize("NFKC", text).translate(_MARKS)
    quoted = tuple(" ".join((a or b).casefold().split()) for a, b in _QUOTED.findall(text))
    text = _with_front_behind(text)
    chunks = [chunk for chunk in (_trim(part) for part in _mark_quoted(text).split()) if chunk]
    if not chunks:
        return None
    plain = tuple(chunk.casefold() if not chunk.startswith("-") else chunk for chunk in chunks)
    english = _is_english(plain)
    if not english:
        return Question("", plain, quoted, past=False, english=False)
    shouting = text.upper() == text or any(map(_is_shouted, chunks))
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
    kind, words = _how_to(kind, words)
    words = _of(plain_numbers(words), dropped)
    words = [word for word in words if word not in dropped]
    proper = frozenset() if _is_title(chunks) else names
    words = [word if word in proper else _folded(word) for word in words]
    return Question(kind, tuple(_sorted_pair(words)), quoted, past=past, english=True)


def _is_shouted(chunk: str) -> bool:
    """Whether it is a small word in capitals that means nothing else in them: then capitals say nothing here."""
    return len(chunk) > 1 and chunk.isupper() and chunk.casefold() in WORDS.function - WORDS.acronyms


def _is_title(chunks: list[str]) -> bool:
    """Whether capitals say nothing: every word that is not small has one."""
    return all(not chunk[:1].islower() for chunk in chunks if is_content(chunk.casefold()))


def is_content(word: str) -> bool:
    """Whether a word of a question names something, other than holding the sentence together."""
    return word not in WORDS.function


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


def _with_front_behind(text: str) -> str:
    """ "On trains, is there a discount?" as "is there a discount on trains"."""
    match = _FRONTED.fullmatch(text)
    if match is None or match[1].split(maxsplit=1)[0].casefold() not in WORDS.fronted:
        return text
    begins = _trim(match[2].split(maxsplit=1)[0]).casefold().split("'")[0]
    if begins not in WORDS.openers and begins not in WORDS.bare:
        return text
    return f"{match[2].rstrip(' ?.!')} {match[1][0].lower()}{match[1][1:]}"


def _mark_quoted(text: str) -> str:
    """`text` with each quoted phrase made one chunk that equals only itself."""
    return _QUOTED.sub(lambda match: ' "' + "_".join((match[1] or match[2]).casefold().split()) + '" ', text)


def _is_english(plain: tuple[str, ...]) -> bool:
    foreign_letters = [c for word in plain if not word.isascii() for c in word if c.isalpha() and not c.isascii()]
    if any(not unicodedata.name(c, "").startswith("LATIN") for c in foreign_letters):
        return False
    pieces = {piece for word in plain for piece in word.split("'")}
    english, foreign = len(pieces & WORDS.strong), len(pieces & WORDS.foreign)
    return english >= 2 * foreign + bool(foreign_letters)


def _dropped(plain: tuple[str, ...]) -> frozenset[str]:
    """What carries nothing; hardly anything where only the want of other signs says that the query is English."""
    pieces = {piece for word in plain for piece in word.split("'")}
    return WORDS.dropped if pieces & WORDS.strong else WORDS.articles


def _expand(chunks: list[str], shouting: bool) -> list[str]:
    """Lower-cased words: contractions written out, compounds taken apart, names that look like small words marked."""
    words: list[str] = []
    plain_letters = shouting or _is_title(chunks)
    for place, chunk in enumerate(chunks):
        word = chunk.casefold()
        acronym = len(chunk) > 1 and chunk.isupper() and not shouting and word in WORDS.acronyms
        if acronym or chunk.startswith(("-", '"')):
            words.append(chunk)
        elif word == "a" and place and _is_letter(chunk, chunks[place - 1], place == len(chunks) - 1, plain_letters):
            words.append("A")
        elif "'" in word:
            words.extend(_contraction(word))
        elif _HYPHENED.fullmatch(word):
            words.extend(word.split("-"))
        else:
            words.extend(WORDS.bare.get(word, (word,)))
    return words


def _is_letter(chunk: str, before: str, last: bool, plain_letters: bool) -> bool:
    """Whether an "a" is a name ("hepatitis A") and no article."""
    return last or (chunk == "A" and not plain_letters) or _folded(before.casefold()) in WORDS.lettered


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
        for length in range(min(WORDS.longest_phrase, len(words) - place), 0, -1):
            same = WORDS.phrases.get(tuple(words[place : place + length]))
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
    while len(words) > 1:
        size = (
            _courtesy(words)
            or _opening(words, WORDS.lead, WORDS.asked)
            or _opening(words, WORDS.ask, None)
            or _opening(words, WORDS.ask_before, WORDS.wh | WORDS.articles)
        )
        if size:
            words = words[size:]
            continue
        size = next((len(s) for s in WORDS.closing if len(s) < len(words) and tuple(words[-len(s) :]) == s), 0)
        if not size or words[-size - 1] in WORDS.mentioned | WORDS.function:
            break
        words = words[:-size]
    return words


def _courtesy(words: list[str]) -> int:
    """How many words in front only greet, where what follows begins to ask; else 0."""
    if words[0] not in WORDS.greeting:
        return 0
    size = next((place for place, word in enumerate(words) if word not in WORDS.courtesy), 0)
    return size if size and words[size] in WORDS.openers else 0


def _opening(words: list[str], sequences: list[tuple[str, ...]], before: frozenset[str] | None) -> int:
    """How many words of a sequence stand in front, where one of `before` (None: anything) follows; else 0."""
    for sequence in sequences:
        size = len(sequence)
        if size < len(words) and tuple(words[:size]) == sequence and (before is None or words[size] in before):
            return size
    return 0


def _kind(words: list[str]) -> tuple[str, list[str], bool]:  # noqa: PLR0912 - one table of openings
    """What is asked for, the words without what said so, and whether it was in the past."""
    lead: list[str] = []
    if (
        len(words) > 2
        and words[0] in ("in", "at", "for", "by", "from", "to", "since", "until", "with", "on", "of")
        and (words[1] in WORDS.asks or words[1] in ("what", "which", "how"))
    ):
        lead, words = words[:1], words[1:]
    first, rest = words[0], words[1:]
    past = False
    kind = ""
    if first in WORDS.asks:
        kind = first
    elif first in ("what", "which"):
        kind = "what"
        if rest and rest[0] in ("time", "year"):
            kind, rest = f"what {rest[0]}", rest[1:]
    elif first == "how":
        kind = "how"
        if rest and rest[0] in WORDS.how:
            kind, rest = f"how {rest[0]}", rest[1:]
    elif first in WORDS.auxiliaries and rest:
        kind = {"are": "is", "am": "is", "were": "was", "does": "do", "has": "have"}.get(first, first)
        if kind == "could" and rest[0] in WORDS.persons:
            kind = "can"
        return kind, [*lead, *(_drop_there(rest) if kind in ("is", "was") else rest)], past
    elif first == "define" and rest:
        return "", [*rest, "definition"], past
    else:
        return "", words, past
    if kind in ("how", "where"):
        rest = _without_asker(rest)
    verb = next((place for place, word in enumerate(rest) if word in _PAST or word in _PRESENT), None)
    if verb is not None and rest[verb] in _PAST:
        past = True
        rest = rest[:verb] + rest[verb + 1 :]
    if not lead and not past:
        kind, rest = _subject(kind, rest)
    return kind, [*lead, *_drop_there(rest)], past


def _without_asker(words: list[str]) -> list[str]:
    """ "do I", "can we", "to" taken from behind "how" or "where", and the asker's "my" with it."""
    owned = {"my", "our"}
    if words[:1] == ["to"] and len(words) > 1:
        words = words[1:]
        owned.add("your")
    elif len(words) > 2 and words[0] in ("do", "can", "could", "would", "does", "might") and words[1] in WORDS.persons:
        words = words[2:]
    else:
        return words
    several = len({word for word in words if word in ("my", "our", "your")}) > 1
    return words if several else [word for word in words if word not in owned]


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
    if kind in ("what", "how much") and rest[-1] == "cost" and does == 0:
        return "", rest[1:]  # the X cost
    if kind == "what" and rest[-1] == "mean" and does == 0:
        return "", [*rest[1:-1], "definition"]
    if kind == "what" and rest[-1] == "have" and does and len(rest) - does > 2 and rest[does + 1] not in WORDS.persons:
        return "", [*rest[does + 1 : -1], *rest[:does]]  # "what symptoms does X have"
    return kind, rest


def _drop_there(words: list[str]) -> list[str]:
    return [w for at, w in enumerate(words) if not (w == "there" and (not at or words[at - 1] in ("is", "are")))]


@lru_cache(maxsize=8192)
def _folded(word: str) -> str:
    """One word in one spelling, its plural as its singular."""
    if not word.isalpha() or not word.islower():
        return WORDS.same.get(word, word)
    word = WORDS.same.get(word, word)
    word = WORDS.irregular.get(word, word)
    if word not in WORDS.no_plurals and len(word) >= 4 and not word.endswith(_NO_PLURAL):
        if word.endswith("ies") and len(word) > 4:
            word = word[:-3] + "y"
        elif word.endswith(_PLURAL_ES):
            word = word[:-2]
        elif word.endswith("s"):
            word = word[:-1]
    word = _IZE.sub(r"iz\1", word) if len(word) > 5 else word
    return WORDS.same.get(word, word)


def _of(words: list[str], dropped: frozenset[str]) -> list[str]:
    """ "policy of returns" as "returns policy"; left alone where there is more than one "of"."""
    hinges = [place for place, word in enumerate(words) if word == "of"]
    if not hinges:
        hinges = [p for p, word in enumerate(words) if word == "for" and p and _folded(words[p - 1]) in WORDS.topics]
    if len(hinges) != 1:
        return words
    at = left = hinges[0]
    while left > 0 and is_content(words[left - 1]):
        left -= 1
    while left < at and words[left] in WORDS.leading:
        left += 1
    start = at + 1
    while start < len(words) and words[start] in dropped:
        start += 1
    right = start
    while right < len(words) and is_content(words[right]):
        right += 1
    owned, owner = words[left:at], words[start:right]
    if (
        not owned
        or not owner
        or _folded(owned[-1]) in WORDS.containers
        or any(c.isdigit() for word in owned for c in word)
    ):
        return words
    return [*words[:left], *owner, *owned, *words[right:]]


def _how_to(kind: str, words: list[str]) -> tuple[str, list[str]]:
    """ "install X" and "installing X" ask how to, where the first word can be nothing but a verb."""
    if kind not in ("", "how") or len(words) < 2:
        return kind, words
    first = words[0]
    stem = first[:-3] if first.endswith("ing") else ""
    for verb in (stem, stem + "e", stem[:-1]) if stem else (first,) if kind == "" else ():
        verb = WORDS.same.get(verb, verb)
        if verb in WORDS.verbs or (verb in WORDS.noun_like and not WORDS.marks.isdisjoint(words[1:])):
            return "how", _without_asker(["to", verb, *words[1:]])
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
