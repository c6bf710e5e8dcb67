"""Style of a whole PDF: body text size and outline, and which lines are headings."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from app.ingest.formats.clean import clean
from app.ingest.formats.pdf_layout import Line
from app.ingest.formats.pdf_page import HYPHEN, Page

BULLET = re.compile(r"[•‣▪▫◦●○■□➢➤►▸❖✓✔\u2043\u2219\uf0b7\uf0a7\uf0d8\uf0fc\u00b7]\s*|[-–—*]\s+(?=\S)")
MARK = re.compile(
    rf"[•‣▪▫◦●○■□➢➤►▸❖✓✔\u2043\u2219\uf0b7\uf0a7\uf0d8\uf0fc\u00b7*–—{HYPHEN}-]|\(?(?:\d{{1,2}}|[a-z])[.)]"
)
"""A bullet or number on its own, its text after a tab."""
LEADER = re.compile(r"\s*(?:\.\s?){4,}\s*|\s*(?:_\s?){4,}\s*|\s*…{2,}\s*")
CAPTION = re.compile(r"(?i)(figure|fig\.|table|tab\.|abbildung|abb\.|tabelle|tableau|algorithm|listing)\s*[\dIVX]+")
WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
LONGEST_HEADING = 160
_FIRST_PARTS = re.compile(
    r"long|short|high|low|well|ill|self|half|full|part|all|cross|non|ex|far|near|"
    r"deep|wide|large|small|big|mid|open|real|right|left|top|hard|soft|fast|slow|first|"
    r"second|third|one|two|three|four|five|six|seven|eight|nine|ten|multi|year|month|"
    r"week|day|time|cost|state|world|energy|water|user|data|risk|decision|hand|cash|tax|"
    r"interest|price|market|customer|employee|family|government|industry|property|land|oil|"
    r"gas|air|sea|fire|light|heat|power|safety|fuel|rule|evidence|science|community|peer|"
    r"co|so|vice|built|stand|old|new|free|then|late|early|single|double|dual|zero|post|"
    r"above|below"
)
"""Words with which English compounds often begin that keep their hyphen."""
_ENDINGS = re.compile(
    r"(?:ware|ment|ness|age|ing|ings|ity|ly|less|ful|est|er|ers|en|ened|ship|wise|ward|wards|tion|tions|ally|line|base|"
    r"way|ways|light|lights|tude)(?![^\W\d_])"
)
"""Ends of words that a hyphen at a line's end cuts off, and second halves of words written as one."""

_SECTION = re.compile(
    r"(?:(?:chapter|section|part|appendix|kapitel|abschnitt|teil|anhang|chapitre|annexe)\s+)?"
    r"((?:[A-Z]|\d{1,2})(?:\.\d{1,2}){0,4})[.:)]?\s+[^\W\d_]",
    re.IGNORECASE,
)
_FIXED_HEADING = re.compile(
    r"(?i)(abstract|introduction|conclusions?|references|bibliography|acknowledge?ments?|contents|table of contents|"
    r"zusammenfassung|literatur(verzeichnis)?|inhalt(sverzeichnis)?|résumé|références|resumen|referencias)"
)
_ROMAN = re.compile(r"[IVX]{1,5}\.\s+[A-Z][^.]{3,70}")
"""IEEE section headings: neither bold nor large, but centred in the column."""
_LARGER = 1.12
"""Minimum size of a heading as a multiple of the body's size."""


@dataclass(slots=True)
class Style:
    """Body size, heading sizes (largest first), the outline as `key` -> depth, and word counts."""

    body: float
    sizes: list[float]
    outline: dict[str, int] = field(default_factory=dict)
    words: Counter[str] = field(default_factory=Counter)

    def heading_level(self, line: Line, previous: Line | None, following: Line | None, pitch: float) -> int:
        """Return the depth of a heading from 1, or 0 for other lines; by outline, then numbering, then size.

        `previous` and `following` are the adjacent lines in the column, `pitch` is the column's usual line distance.
        """
        text = clean(line.text.replace(HYPHEN, "-"))
        if not _may_be_heading(text) or (line.mono and not self._is_larger(line)):
            return 0
        bookmarked = self.outline.get(key(text), 0)
        stands_out = line.bold or line.size > 1.02 * self.body or previous is None
        if bookmarked and (stands_out or not LEADER.search(text)):
            return min(6, bookmarked)
        if LEADER.search(text) or text[0].islower() or CAPTION.match(text) or BULLET.match(text):
            return 0
        roman = bool(_ROMAN.fullmatch(text)) and _is_centred(line)
        if not (self._is_larger(line) or roman or self._is_bold_heading(line, text, previous, following, pitch)):
            return 0
        return self._depth(line, text)

    def same_heading(self, line: Line, previous: Line) -> bool:
        """Return whether `line` continues the heading of `previous`: same type, place and spacing."""
        return (
            abs(line.size - previous.size) < 0.5
            and line.bold == previous.bold
            and (line.bold or line.size > 1.05 * self.body)
            and 0 <= line.y0 - previous.y0 < 1.7 * line.size
            and min(abs(line.x0 - previous.x0), abs(line.x0 + line.x1 - previous.x0 - previous.x1)) < 2 * line.size
            and not _SECTION.match(line.text)
            and not CAPTION.match(line.text)
        )

    def _is_larger(self, line: Line) -> bool:
        return line.size >= _LARGER * self.body

    def _is_bold_heading(
        self, line: Line, text: str, previous: Line | None, following: Line | None, pitch: float
    ) -> bool:
        """Return whether a line is bold, of body size and isolated: not the first words of a paragraph or a row of a
        table.
        """
        if not line.bold or line.size < 0.95 * self.body or text.endswith((",", ";", "-")):
            return False
        if _SECTION.match(text) or _FIXED_HEADING.fullmatch(text):
            return True
        alone = previous is None or line.y0 - previous.y0 > 1.15 * pitch or previous.bold
        goes_on = following is not None and following.bold and following.y0 - line.y0 < 1.3 * pitch
        return alone and not goes_on and len(text) <= 100 and not text.endswith((".", ":")) and len(line.cells) == 1

    def _depth(self, line: Line, text: str) -> int:
        numbered = _SECTION.match(text)
        if numbered and (numbered[1].isupper() or numbered[1][0].isdigit()) and not text.endswith("."):
            return min(6, numbered[1].count(".") + 2)
        if _ROMAN.fullmatch(text):
            return 2
        if self._is_larger(line):
            rank = next((i for i, size in enumerate(self.sizes) if _round(line.size) >= size * 0.97), 4)
            return min(6, rank + 1)
        return min(6, len(self.sizes) + 2)


def _may_be_heading(text: str) -> bool:
    letters = sum(ch.isalpha() for ch in text)
    least = 0.25 if _SECTION.match(text) else 0.4
    return letters >= 2 and len(text) <= LONGEST_HEADING and letters >= least * len(text.replace(" ", ""))


def _is_centred(line: Line) -> bool:
    before, after = line.x0 - line.left, line.right - line.x1
    return before > line.size and abs(before - after) < 0.1 * (line.right - line.left)


def style_of(pages: list[tuple[Page, list[Line]]], outline: dict[str, int]) -> Style:
    """Return the style; `outline` is the text of a bookmark, as `key` makes it, -> its depth from 1."""
    sizes: Counter[float] = Counter()
    words: Counter[str] = Counter()
    for _, lines in pages:
        cut = False
        for line in lines:
            sizes[_round(line.size)] += len(line.text)
            found = WORD.findall(line.text.lower())
            cut_here = line.text.rstrip().endswith(("-", HYPHEN))
            words.update(found[cut : len(found) - cut_here])
            cut = cut_here
    body = max(sizes, key=lambda size: (sizes[size], size)) if sizes else 10.0
    larger = sorted((size for size in sizes if size >= _LARGER * body), reverse=True)
    merged: list[float] = []
    for size in larger:
        if not merged or merged[-1] > 1.05 * size:
            merged.append(size)
    return Style(body, merged, outline, words)


def _round(size: float) -> float:
    return round(size * 2) / 2


def key(text: str) -> str:
    """Return a heading's text for comparison: letters and digits only."""
    return "".join(ch for ch in text.casefold() if ch.isalnum())


def join_lines(texts: list[str], words: Counter[str]) -> str:
    """Join lines to one text; words hyphenated at the end of a line are joined."""
    pieces: list[str] = []
    for text in texts:
        line = _clean_line(text)
        if pieces and pieces[-1].endswith(("-", HYPHEN, "‐")) and line[:1].isalpha():
            pieces[-1] = pieces[-1][:-1] + ("-" if _is_compound(pieces[-1][:-1], line, words) else "")
        elif pieces and line:
            pieces.append(" ")
        if line:
            pieces.append(line)
    return clean("".join(pieces).replace(HYPHEN, "-"))


def _clean_line(text: str) -> str:
    """Apply `clean`; the mark of a line's hyphen is kept at the end and made a plain hyphen elsewhere."""
    stripped = text.rstrip()
    cleaned = clean(LEADER.sub(" ", stripped.rstrip(HYPHEN).replace(HYPHEN, "-")))
    return cleaned + HYPHEN if stripped.endswith(HYPHEN) else cleaned


def _is_compound(before: str, after: str, words: Counter[str]) -> bool:
    """Return whether the hyphen belongs to the word: ``repre-`` + ``sentation`` is one word, ``pre-`` + ``trained`` a
    compound that the document uses elsewhere.
    """
    left = re.search(r"[^\W\d_]+(?:-[^\W\d_]+)*$", before[-80:])
    right = WORD.match(after)
    if not left or not right or not after[0].islower():
        return True
    hyphened, whole = f"{left[0]}-{right[0]}".lower(), f"{left[0]}{right[0]}".lower()
    if words[hyphened] != words[whole]:
        return words[hyphened] > words[whole]
    # neither is known: two words that also occur alone make a compound
    if _FIRST_PARTS.fullmatch(left[0].lower()) and len(right[0]) > 2 and not _ENDINGS.match(right[0]):
        return True
    return "-" in left[0] or (len(left[0]) > 3 and words[left[0].lower()] > 0 < words[right[0].lower()])
