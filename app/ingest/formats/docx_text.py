"""Text of WordprocessingML elements: runs, links, fields, tracked changes, content controls, equations."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lxml import etree

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"

_SKIPPED = frozenset(
    {f"{W}del", f"{W}moveFrom", f"{W}instrText", f"{W}delText", f"{W}rPr", f"{W}pPr", f"{W}commentReference"}
)
_TEXT_BOXES = frozenset({f"{W}txbxContent"})
_CHARACTERS = {
    f"{W}tab": "\t",
    f"{W}br": "\n",
    f"{W}cr": "\n",
    f"{W}noBreakHyphen": "\u2011",
    f"{W}ptab": "\t",
}
_HIDDEN = (f"{W}rPr/{W}vanish", f"{W}rPr/{W}webHidden")
_OFF = frozenset({"0", "false", "off"})


def is_on(element: etree._Element | None) -> bool:
    """Return whether a toggle such as <w:vanish/> is present and not switched off."""
    return element is not None and element.get(f"{W}val", "1") not in _OFF


def text_of(element: etree._Element) -> str:
    """Return the visible text below `element`, without text boxes (see `text_boxes`) and deleted or hidden text."""
    return "".join(_texts(element))


def _texts(element: etree._Element) -> Iterator[str]:
    for child in element:
        tag = child.tag
        if tag == f"{W}t":
            yield child.text or ""
        elif tag == f"{M}oMath":
            yield f" {math(child)} "
        elif tag == f"{M}oMathPara":
            yield " ".join(math(part) for part in child.iter(f"{M}oMath") if is_outermost(part))
        elif tag == f"{W}sym":
            yield _symbol(child)
        elif tag in _CHARACTERS:
            yield _CHARACTERS[tag]
        elif tag in (f"{W}footnoteReference", f"{W}endnoteReference"):
            yield ""
        elif (
            tag in _SKIPPED
            or tag in _TEXT_BOXES
            or not isinstance(tag, str)
            or (tag == f"{W}r" and any(is_on(child.find(path)) for path in _HIDDEN[:1]))
        ):
            continue
        elif tag == f"{MC}AlternateContent":
            choice = child.find(f"{MC}Choice")
            yield from _texts(choice if choice is not None else child)
        else:
            yield from _texts(child)


def _symbol(element: etree._Element) -> str:
    try:
        return chr(int(element.get(f"{W}char", ""), 16))
    except (ValueError, OverflowError):
        return ""


def text_boxes(element: etree._Element) -> Iterator[etree._Element]:
    """Yield the contents of text boxes anchored in `element`, each once (without the fallback for older programs)."""
    replaced: dict[etree._Element, bool] = {}  # one lookup each: a fallback may contain many
    for box in element.iter(f"{W}txbxContent"):
        fallback = next(box.iterancestors(f"{MC}Fallback"), None)
        if fallback is not None:
            if fallback not in replaced:
                parent = fallback.getparent()
                choice = parent.find(f"{MC}Choice") if parent is not None else None
                replaced[fallback] = choice is not None and next(choice.iter(f"{W}txbxContent"), None) is not None
            if replaced[fallback]:
                continue
        if next(box.iterancestors(f"{W}txbxContent"), None) is None or box is element:
            yield box


def is_outermost(formula: etree._Element) -> bool:
    """Return whether a formula is not inside another one, whose text would include it."""
    return next(formula.iterancestors(f"{M}oMath"), None) is None


def shape_texts(element: etree._Element) -> list[str]:
    """Return the paragraphs of DrawingML shapes (SmartArt, diagrams) drawn in `element`."""
    return [
        text
        for paragraph in element.iter(f"{A}p")
        if (text := "".join(part.text or "" for part in paragraph.iter(f"{A}t")).strip())
    ]


def math(element: etree._Element | None) -> str:
    """Return Office Math as linear text: ``(a+b)/(2)``, ``x^(2)``, ``sqrt(x)``."""
    if element is None:
        return ""
    name = etree.QName(element).localname if isinstance(element.tag, str) else ""
    part = {etree.QName(child).localname: child for child in element if isinstance(child.tag, str)}
    rule = _MATH.get(name)
    if rule is not None:
        return rule(part, element)
    if name in ("t", "delText"):
        return element.text or ""
    if name.endswith("Pr"):
        return ""
    return "".join(math(child) for child in element)


_Parts = dict[str, etree._Element]


def _group(element: etree._Element | None) -> str:
    text = math(element).strip()
    return text if len(text) <= 1 or text.isalnum() else f"({text})"


def _property(element: etree._Element, path: str, default: str) -> str:
    found = element.find("/".join(f"{M}{step}" for step in path.split("/")))
    return default if found is None else found.get(f"{M}val", default)


def _root_sign(part: _Parts) -> str:
    degree = _group(part.get("deg"))  # only once: nested roots in degrees would double the time at each level
    return f"root_{degree}" if degree else "sqrt"


def _nary(part: _Parts, element: etree._Element) -> str:
    sign = _property(element, "naryPr/chr", "∫")
    below, above = _group(part.get("sub")), _group(part.get("sup"))
    return f"{sign}{'_' + below if below else ''}{'^' + above if above else ''} {math(part.get('e'))}"


def _delimited(part: _Parts, element: etree._Element) -> str:
    separator = _property(element, "dPr/sepChr", "|")
    inner = separator.join(math(child) for child in element.findall(f"{M}e"))
    return f"{_property(element, 'dPr/begChr', '(')}{inner}{_property(element, 'dPr/endChr', ')')}"


def _matrix(part: _Parts, element: etree._Element) -> str:
    rows = (", ".join(math(cell) for cell in row.findall(f"{M}e")) for row in element.findall(f"{M}mr"))
    return "[" + "; ".join(rows) + "]"


_MATH: dict[str, Callable[[_Parts, etree._Element], str]] = {
    "f": lambda p, e: f"{_group(p.get('num'))}/{_group(p.get('den'))}",
    "sSup": lambda p, e: f"{math(p.get('e'))}^{_group(p.get('sup'))}",
    "sSub": lambda p, e: f"{math(p.get('e'))}_{_group(p.get('sub'))}",
    "sSubSup": lambda p, e: f"{math(p.get('e'))}_{_group(p.get('sub'))}^{_group(p.get('sup'))}",
    "sPre": lambda p, e: f"_{_group(p.get('sub'))}^{_group(p.get('sup'))}{math(p.get('e'))}",
    "rad": lambda p, e: f"{_root_sign(p)}({math(p.get('e'))})",
    "func": lambda p, e: f"{math(p.get('fName'))} {math(p.get('e'))}",
    "limLow": lambda p, e: f"{math(p.get('e'))}_{_group(p.get('lim'))}",
    "limUpp": lambda p, e: f"{math(p.get('e'))}^{_group(p.get('lim'))}",
    "nary": _nary,
    "d": _delimited,
    "m": _matrix,
    "eqArr": lambda p, e: "; ".join(math(child) for child in e.findall(f"{M}e")),
}
