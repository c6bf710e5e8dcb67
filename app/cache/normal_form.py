"""Normal form of a query: queries with equal normal forms ask the same and may share an answer.

Similar vectors prove nothing: "enable X" and "disable X", "from A to B" and "from B to A", 2022 and 2023 are closer
than most true paraphrases (docs/near-queries.md). So only these are folded: case, white space and punctuation around
words; in English polite words around a question, contractions, articles, plain plurals and some openings ("how can I",
"how to"). No other word is dropped, moved or replaced, so that another number, negation, name, code, unit or tense
gives another normal form. Doubtful cases count as different: that costs a search, while the opposite mistake gives a
wrong answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from app.cache.codec import digest

MAX_CHARACTERS = 512
"""Maximum length; longer queries have no normal form and differ from all others."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MARKS = str.maketrans(
    {**dict.fromkeys("“”„«»‟″", '"'), **dict.fromkeys("‘’‚‛`´′", "'"), **dict.fromkeys("‐‑–—−", "-")}
)
_RAISED = re.compile("[⁰¹²³⁴-⁹⁻₀-₉]+")
"""Characters that NFKC would turn into plain digits: 10⁵ is not 105."""
_QUOTED = re.compile(r"\"([^\"]{1,200})\"|(?<![\w'])'([^']{2,200})'(?![\w'])")
_KEPT_BEFORE, _KEPT_BEHIND = frozenset('"#%&@/\\*_'), frozenset('"#%&@/*_')
_SIGNED = re.compile(r"[^\W\d_]{1,2}-|\d+['!]+")
"""Blood group A-, six feet as 6', the factorial 5!: here the trailing mark is significant."""
_CASED = _words(
    "IT US WHO AIDS OR IN AS NO SO ON CAN MAY ALL ME HE IF DO IS AM BE AN AT A CAT PET SAD PIN Mb Gb Tb Kb MW Mw"
)
"""Words whose meaning depends on case, unless the query capitalises other small words as well."""
_ENGLISH = _words(
    """the what whats how who where when why which does did could should would their this that these tell my your can is
    are do have of with from define vs versus between hours symptoms requirements effects practices prices fees rules
    benefits"""
)
"""Words of which an English query has one (or one of `_HOW_TO`); it also has none of `_FOREIGN` and
only ASCII letters."""
_FOREIGN = _words(
    """de la el los las del que con para por le les des du une et est pour der die das den dem ein eine einen und ist
    nicht wie wer wo ich het een van wat hoe niet och att det il che di un per sono os da ao em og ikke jest nie"""
)
_POLITE = _words("hi hello hey hiya please thanks thank you cheers um uh er erm hmm many a lot so very much in advance")
"""Words without content; a query of only these asks nothing."""
_NEGATIONS = _words("not no never without none nor neither nothing nobody nowhere non except excluding unless")
_VERBS = _words(
    """install uninstall delete remove create cancel configure enable disable connect unsubscribe subscribe merge
    restore recover renew replace generate convert activate deactivate submit migrate encrypt decrypt deploy integrate
    buy sell apply edit add rename"""
)
"""Verbs that are not nouns: a query that begins with one means "how to", except for compounds ("buying guide")."""
_HOW_TO = {form: f"how to {verb} " for verb in _VERBS for form in (verb, verb.removesuffix("e") + "ing")}
_NO_PLURALS = _words(
    """whats wheres whens goods customs forces spirits grounds letters damages duties securities futures pants shorts
    glasses pains means works terms times values savings earnings proceeds remains ashes woods waters sands
    peoples minutes series species sometimes towards always perhaps besides unless james charles wales naples
    brussels athens states windows rabies measles mumps rickets shingles herpes scabies diabetes tens hundreds
    thousands millions billions clothes thanks greens blues gates hills singles doubles rights sports games
    looks talks stairs headquarters barracks quarters heads tails briefs contents manners premises stocks bonds
    wages philippines netherlands movies cookies aliens simpsons lives leaves wives knives wolves shelves halves
    thieves loaves"""
)
"""Words whose final s makes another word or none, or whose singular the rule would not find."""

_WH = "what|who|whom|whose|when|where|why|which|how"
_OPENER = rf"(?=(?:{_WH}|is|are|am|was|were|do|does|did|can|could|may|might|must|should|shall|will|would|have|has)\b)"
_GREETING = (
    "(?:(?:hi|hello|hey|hiya|um+|uh|er|erm|hmm|yeah|please|kindly|excuse me|just (?:wondering|curious)|"
    "(?:just )?(?:a )?quick (?:one|question)|good (?:morning|afternoon|evening)|"
    rf"(?:ok|okay|so|sorry)(?= (?:{_WH}|can i)\b))(?: (?:there|team|all|everyone|um|uh|er|so))* )+"
)
_SALUTE = (
    "sorry|ok|okay|so|well|thanks|hi|hello|hey|hiya|there|team|all|everyone|folks|guys|quick|one|question|just|"
    "wondering|curious|good|morning|afternoon|evening|please|excuse|me|again"
)
_SALUTATION = re.compile(rf"^(?:(?:{_SALUTE})[,!.]? )*(?:{_SALUTE})[,!.:]+ {_OPENER}", re.IGNORECASE)
"""Salutations that are polite only when set off, for example by a comma."""
_TELL = (
    r"(?:(?:can|could|would|will) you (?:please )?|please )?(?:tell (?:me|us)|let me know|(?:show|give) me|"
    r"explain(?: to (?:me|us))?|do you (?:happen to )?know|i (?:want|would like|need) to know) "
)
_BACK = re.compile(
    r"(?:, ?please|[.?!]+ (?:cheers|thx|ta|(?:many )?thanks|thank you)(?: in advance| a lot| so much| very much)?)"
    r"[ .!?]*$",
    re.IGNORECASE,
)
_FRONT = re.compile(
    r"((?:on|at|in|for|to|from|during|with|after|before|under|within|without) [^,?!.;:\"]{2,80}), ([^,;:\"]+)"
)
_RELATIONS = "symptom|side effect|capital|population|requirement|deadline|meaning"
"""Relations for which "X of Y" equals "Y X"; for others it does not ("cost of capital")."""
_SMALL_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NO_MY = "(?!(?:my|our|your)(?![^ ]))[^ ]+"
_CONTENT = "(?!(?:of|in|on|at|for|from|to|with|without|by|and|or|than|as|vs|between|that|is)(?![^ ]))[^ ]+"
_BEFORE_A = "is|of|in|on|to|for|with|from|by|do|there|into|than|get|make|need|have"
_NO_ARTICLE = (
    r"(?!(?:few|little|lot|bit|number|couple|levels?|flat|sharp|major|minor|star|grades?|side|road|roll|"
    r"is|was|do|and|or|of|to|vs|\w|\W)\b)"
)
_RULES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\b(what|who|how|where|when|why|that)'?s(?![^ ])", r"\1 is"),
    (r"\b(?:can't|cannot)(?![^ ])", "can not"),
    (r"\bwon't(?![^ ])", "will not"),
    (r"\b(do|does|did|is|are|was|were|could|should|would|has|have|had|must)n'?t(?![^ ])", r"\1 not"),
    (rf"^{_GREETING}{_OPENER}", ""),
    (r"(?<=[^ ] )(?:um|uh|erm) (?=.)", ""),
    (rf"^{_TELL}(?=(?:{_WH}|the)\b)", ""),
    (r"(?<![^ ])are(?![^ ])", "is"),
    (r"(?<![^ ])does(?![^ ])", "do"),
    (r"(?<![^ ])(\d[\d.,]*)(kb|mb|gb|tb|km|cm|mm|kg|am|pm)(?![^ ])", r"\1 \2"),
    (r"^(how|where) (?:do|can|could) (?:i|we|one) ", r"\1 to "),
    (
        r"^([a-z]+) (?=(?:.+ )?(?:a|an|the|my|our|your|to|from|into|in|on|with) )",
        lambda found: _HOW_TO.get(found[1], found[0]),
    ),
    (rf"^((?:how|where) to(?: {_NO_MY})+) (?:my|our)((?: {_NO_MY})+)$", r"\1\2"),
    (r"^(how|where|why|when) do ", r"\1 "),
    (r"^how frequently ", "how often "),
    (r"^(?:(?:at|in) (?=(?:what|which) (?:time|year) ))?(?:what|which) ", "what "),
    (r"^(what|who|where) (the .+) is$", r"\1 is \2"),
    (r"^what do (.+) mean$", r"meaning of \1"),
    (r"^(?:define|what is meant by) (?=.)", "meaning of "),
    (r"^(?:how much|what) do (.+) cost$", r"cost of \1"),
    (r"^what is (?=.)", ""),
    (r"(?<![^ ])(?:the|an) (?=.)", ""),
    (rf"^a {_NO_ARTICLE}", ""),
    (rf"(?<![^ ])({_BEFORE_A}|(?:how|where) to [a-z]+) a {_NO_ARTICLE}", r"\1 "),
    (rf"^what ((?:{_RELATIONS})s?) do (.+) have$", r"\2 \1"),
    (rf"^what ((?:{_RELATIONS})s?) is there (?=for|of)", r"\1 "),
    (r"^((?:requirement|deadline)s?) for ", r"\1 of "),
    (rf"^([^ ]+)'s ((?:{_RELATIONS})s?)$", r"\1 \2"),
    (rf"^((?:{_RELATIONS})s?) of((?: {_CONTENT})+)$", r"\2 \1"),
    (
        r"^(difference between )([^ ]+) and ([^ ]+)$",
        lambda found: found[1] + " and ".join(sorted(found.groups()[1:])),
    ),
    (r"(?<![^ ])versus(?![^ ])", "vs"),
    *((rf"(?<![^ ]){word}(?![^ ])", str(count)) for count, word in enumerate(_SMALL_NUMBERS, start=2)),
)
"""Patterns and their replacements, in this order, for English words separated by single spaces."""
_FOLDED = tuple((re.compile(pattern), instead) for pattern, instead in _RULES)


def normal_form(text: str) -> tuple[str, ...] | None:
    """Return the words of `text` for comparison; None if it asks nothing or is too long. Never fails."""
    if len(text) > MAX_CHARACTERS:
        return None
    text = unicodedata.normalize("NFKC", _RAISED.sub(lambda match: f"^{match[0]}", text)).translate(_MARKS)
    text = _QUOTED.sub(lambda match: ' "' + "\0".join((match[1] or match[2]).lower().split()) + '" ', text)
    text = " ".join(text.split())
    if not _is_english(text):
        words = tuple(_plain(text, english=False))
    else:
        text = _SALUTATION.sub("", _BACK.sub("", text))
        front = _FRONT.fullmatch(text[:1].lower() + text[1:])
        if front and re.match(_OPENER, front[2].lower()):
            text = f"{front[2].rstrip(' ?.!')} {front[1]}"
        folded = " ".join(_plain(text, english=True))
        for pattern, instead in _FOLDED:
            folded = pattern.sub(instead, folded)
        words = tuple(folded.split())
    return None if _POLITE.issuperset(words) else words


def differs(first: str, second: str) -> str | None:
    """Return why the two queries are different questions; None if they are the same.

    The reason is a short stable code: ``unread`` (no normal form), ``quoted``, ``codes``, ``numbers``, ``negation``,
    ``order``, ``words``. Symmetrical; never fails.
    """
    one, other = normal_form(first), normal_form(second)
    if one is None or other is None:
        return "unread"
    if one == other:
        return None
    here, there = Counter(one), Counter(other)
    unlike = (here - there) + (there - here)
    if any(word.startswith('"') for word in unlike):
        return "quoted"
    numbered = "".join(word for word in unlike if any(map(str.isdigit, word)))
    if numbered:
        return "codes" if any(map(str.isalpha, numbered)) else "numbers"
    if not _NEGATIONS.isdisjoint(unlike):
        return "negation"
    return "words" if unlike else "order"


def question_key(text: str) -> str | None:
    """Return a key that two queries share exactly if `differs` finds no difference; None without a normal form."""
    words = normal_form(text)
    return digest(ascii(words)) if words is not None else None


def _is_english(text: str) -> bool:
    words = {_trim(word) for word in text.lower().replace("'", " ").split()}
    return (
        not words.isdisjoint(_ENGLISH | _HOW_TO.keys())
        and words.isdisjoint(_FOREIGN)
        and all(character.isascii() for character in text if character.isalpha())
    )


def _plain(text: str, *, english: bool) -> list[str]:
    """Return the words of `text` without surrounding punctuation, in lower case except where capitals are significant.

    English words that are not names lose their plural s.
    """
    chunks = [chunk for chunk in map(_trim, text.split()) if chunk]
    shouted = any(chunk.isupper() and chunk.lower() in _ENGLISH for chunk in chunks if chunk not in _CASED)
    words = []
    for place, chunk in enumerate(chunks):
        cased = chunk.lstrip("0123456789.,") in _CASED and not shouted and (place or chunk != "A")
        word = chunk if cased or chunk.startswith("-") else chunk.lower()
        words.append(_singular(word) if english and chunk.islower() else word)
    return words


def _singular(word: str) -> str:
    """Return the singular of a plain plural; doubtful words are unchanged."""
    if len(word) < 5 or not word.isalpha() or word in _NO_PLURALS or not re.search("[^siuao]s$", word):
        return word
    if word.endswith("ies") and len(word) > 5:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes", "zzes")) else word[:-1]


def _trim(part: str) -> str:
    """Remove punctuation around `part`; letters, combining marks, digits, signs and symbols stay."""
    start, end = 0, len(part)
    while start < end and _is_edge(part[start], _KEPT_BEFORE):
        if part[start] in ".-" and part[start + 1 : start + 2].isalnum() and not (start and part[start - 1] in ".-"):
            break  # .NET, -1, -r
        start += 1
    while end > start and _is_edge(part[end - 1], _KEPT_BEHIND) and not _SIGNED.fullmatch(part, start, end):
        end -= 1
    return part[start:end]


def _is_edge(character: str, kept: frozenset[str]) -> bool:
    return unicodedata.category(character).startswith("P") and character not in kept
