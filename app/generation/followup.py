"""Follow-up questions: whether a question depends on earlier ones, and its completion by rule.

The rule reads English. It completes a question only if a word or its form points back (a pronoun without antecedent in
the question, an ellipsis), since a wrongly completed question would drag an old subject into a new one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MAX_CARRIED = 16
"""Maximum words that are carried over."""
_FEW_WORDS = 5
"""Content words up to which a question may depend on earlier ones without a sign of it ("What is the deadline?")."""

_FUNCTION_WORDS = frozenset(
    """a about after all also am an and any are as at be because been before being between both but by can could did do
    does during each for from had has have he her here him his how i if in into is it its just may me might more most
    much must many my no not now of on only or other our out over own please same shall she should since so some such
    than that the their them then there these they this those to too under until up us very was we were what whats when
    where which who whom whose why will with without would you your s t ll re ve don doesn didn isn aren wasn okay ok hi
    hello thanks thank""".split()  # noqa: SIM905 - a list of words
)
_VAGUE_WORDS = frozenset(
    """another briefly clarify continue detail details different elaborate else example examples exactly explain further
    give go info information instead it kind know long mean means one ones particular really say second show similar
    sort sorry summarise summarize sure tell want wondering""".split()  # noqa: SIM905 - a list of words
)
"""Words that ask for more of something without naming it."""
_WORD = re.compile(r"[^\W_]+(?:[-./'’][^\W_]+)*")
_OPENER = re.compile(
    r"^(?:(?:ok(?:ay)?|so|well|thanks|thank you|great|oh|hm+)[,.!]? )*(?P<open>and|or|but|what about|how about|what of|"
    r"same (?:question )?for|what if)\b[,]?\s*",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"^(?:(?:in|at|for|from|to|of|by|with|on|under|since|until) )?(?:what|who|whom|whose|which|when|where|why|how|is|"
    r"are|was|were|do|does|did|can|could|should|would|will|has|have|had|may|must)\b",
    re.IGNORECASE,
)
_FRAGMENT = re.compile(
    r"^(?:in|at|for|from|to|of|by|with|without|on|under|since|until|during|after|before|outside|inside|if)\b",
    re.IGNORECASE,
)
_PRONOUN = re.compile(
    r"\b(?:[Ii]t(?:s|self)?|[Tt]hey|[Tt]hem(?:selves)?|[Tt]heirs?|[Hh]e|[Hh]im|[Hh]is|[Ss]he|[Hh]ers?|[Oo]ne of them|"
    r"(?:the|[Ww]hich|another|that|this) (?:first |second |third |last |other |new |old )?ones?|the (?:former|latter|"
    r"same|other|others)|(?:[Tt]his|[Tt]hese|[Tt]hose)(?! (?:year|month|week|quarter|morning|evening|afternoon|"
    r"summer|winter|autumn|spring|service|site|page|company|office|organi[sz]ation)\b)|"
    r"(?:about|of|for|with|does|do|did|is|was|are|to|under|in|after|before|by|from|mean|than|like|on) that)\b"
    r"|(?<!\bis )(?<!\bare )(?<!\bwas )(?<!\bwere )\bthere(?=\s*[?.!]*$)"
)
_EXPLETIVE = re.compile(
    r"\b(?:is|was|will|would) it (?:be )?(?:ok(?:ay)?|possible|necessary|allowed|safe|legal|true|required|worth|better|"
    r"normal|forbidden|permitted|mandatory|important|enough|cheaper|common)\b"
    r"|\bit(?:'s| is| was) (?:possible|necessary|allowed|true|required|forbidden|permitted|mandatory)\b"
    r"|\b(?:does|did|will|would|is|was) it (?:rain|snow|freeze|be raining|raining|snowing)\b"
    r"|\b(?:does|did|will|would) it (?:take|cost) (?:[\w ]+ )?to\b",
    re.IGNORECASE,
)
_DETERMINED = re.compile(
    r"\b(?:the|an?|my|our|your|every|each) ((?:[^\W_]+(?:[-'’.][^\W_]+)*[ ]?){1,5})", re.IGNORECASE
)
_NAMED = re.compile(r"(?<![.!?] )(?<!^)\b(?:[A-Z][^\W_]+(?:[-'’.][^\W_]+)*|[A-Z]{2,})(?: [A-Z][^\W_]+(?:-[^\W_]+)*)*")
_CODE = re.compile(r"\b(?=[^\s]*\d)(?=[^\s]*[A-Za-z])[\w][\w./-]*\w\b")
_QUOTED = re.compile(r"[\"“„«]([^\"“”„«»]{2,100})[\"”“»]")


def is_follow_up(question: str) -> bool:
    """Return whether a question points back to an earlier one. Never fails."""
    text = " ".join(question.split())
    if not text:
        return False
    opened = _OPENER.match(text)
    rest = text[opened.end() :] if opened else text
    if opened and opened["open"].lower() not in {"and", "or", "but"}:
        return True
    words = _content(rest)
    # capitals alone are names: "IT" and "US" point to nothing
    if not [word for word in words if word.lower() not in _VAGUE_WORDS]:
        return not any(word.isupper() and len(word) > 1 for word in _WORD.findall(rest))
    if _points_back(rest):
        return True
    if opened:
        return not (_ASKS.match(rest) and (_subjects(rest) or len(words) > 2))
    return bool(_FRAGMENT.match(rest)) and not _ASKS.match(rest) and len(words) <= 3


def may_depend(question: str) -> bool:
    """Return whether a model should read the earlier questions: `is_follow_up`, or it is short."""
    return is_follow_up(question) or len(_content(question)) <= _FEW_WORDS


def complete(question: str, earlier: Sequence[str]) -> str | None:
    """Return the question with the subject of the last question before it; None if it is no follow-up.

    An ellipsis ("and in Germany?") needs all content words of that question, a pronoun ("who made it?") its subjects.

    Args:
        earlier: earlier questions, oldest first.
    """
    if not earlier or not is_follow_up(question):
        return None
    place = len(earlier) - 1
    while place > 0 and is_follow_up(earlier[place]):
        place -= 1
    base, between = earlier[place], earlier[place + 1 :][-1:]
    carried = (_subjects(base) if _points_back(question) else []) or _content(base)
    # of "and in Germany?" before "who pays it?", Germany
    carried += [word for text in between for word in _content(text)]
    known = {word.lower() for word in _WORD.findall(question)}
    unique = {word.lower(): word for word in carried if word.lower() not in known}
    if not unique:
        return None
    return f"{' '.join([*unique.values()][:_MAX_CARRIED])}: {' '.join(question.split())}"


def is_rewrite(text: str, questions: Sequence[str]) -> bool:
    """Return whether a model's text is a rewrite of the last question: most of its words come from the questions."""
    words = {word.lower() for word in _content(text)}
    known = {word.lower() for question in questions for word in _content(question)}
    return bool(words) and 3 * len(words & known) >= 2 * len(words)


def _points_back(text: str) -> bool:
    """Return whether a pronoun has no antecedent before it in the text."""
    found = _PRONOUN.search(_EXPLETIVE.sub(" ", text))
    return found is not None and not _subjects(_EXPLETIVE.sub(" ", text)[: found.start()])


def _content(text: str) -> list[str]:
    words = _WORD.findall(text)
    shouted = text.isupper()
    return [
        word
        for word in words
        if word.lower() not in _FUNCTION_WORDS or (word.isupper() and len(word) > 1 and not shouted)
    ]


def _subjects(text: str) -> list[str]:
    """Return the words of what a question is about: quoted, codes, names, and nouns behind a determiner."""
    spans = [match.span(1) for match in _QUOTED.finditer(text)]
    spans += [match.span() for pattern in (_CODE, _NAMED) for match in pattern.finditer(text)]
    for match in _DETERMINED.finditer(text):
        run = re.split(rf" (?=(?:{'|'.join(sorted(_FUNCTION_WORDS))})\b)", match[1], maxsplit=1, flags=re.IGNORECASE)[0]
        spans.append((match.start(1), match.start(1) + len(run)))
    words = [(start + word.start(), word[0]) for start, end in spans for word in _WORD.finditer(text[start:end])]
    content = {
        place: word
        for place, word in sorted(words)
        if word.lower() not in _FUNCTION_WORDS | _VAGUE_WORDS or word.isupper()
    }
    return list(dict.fromkeys(content.values()))
