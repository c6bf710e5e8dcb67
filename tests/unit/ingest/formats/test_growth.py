"""No reader takes exponential or quadratic time for what anybody can write into a file.

Judged by growth: the processor time of a file, and of one four times as long. A reader that takes time in
proportion has an exponent of 1, with what the machine's caches add at most 1.4; a quadratic one has 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from app.config import load_settings
from app.ingest.formats import ParserPool, parse_file
from tests.unit.ingest.formats.build import FILES, raw_pdf, replace_entries
from tests.unit.ingest.formats.hostile import timed

LENGTH = 4_000
"""Repetitions in the shorter of two files."""
WORST = 1.7
VISIBLE_S = 0.02
"""A longest file that takes less shows no growth: with an exponent of 2 it took a thousandth for the unit before."""

Make = Callable[[int], bytes]


def page(content: bytes) -> bytes:
    return b"<html><head></head><body><p>text</p>" + content + b"</body></html>"


def confluence(content: bytes) -> bytes:
    return page(b"<ac:x>" + content)


def markdown(content: bytes) -> bytes:
    return b"# Title\n\ntext\n\n" + content


def names(count: int) -> bytes:
    return b" ".join(b"a%d" % number for number in range(count))


HTML: dict[str, Make] = {
    "comments before the page": lambda n: b"<!-- a -->\n" * n + b"<p>text",
    "comments that do not end": lambda n: page(b"<!--" * n),
    "CDATA that does not end": lambda n: confluence(b"<![CDATA[" * n),
    "CDATA in CDATA": lambda n: confluence(b"<![CDATA[ " * n + b"]]>" * n),
    "code that does not end": lambda n: confluence(b"<ac:plain-text-body><![CDATA[" * n + b"]]>" * n),
    "code with many ends": lambda n: confluence(b"<ac:plain-text-body>" + b" " * n + b"<![CDATA[" + b"]]>      " * n),
    "parameters that do not end": lambda n: confluence(b"<ac:parameter>" * n),
    "parameters without a bracket": lambda n: confluence(b"<ac:parameter " * n),
    "layouts without a bracket": lambda n: confluence(b"<ac:layout " * n),
    "links without a bracket": lambda n: confluence(b"<ri:page " * n),
    "links with many names": lambda n: confluence(b"<ri:page " + b'ri:filename="' * n),
    "attributes": lambda n: page(b"<p " + names(8 * n) + b">x</p>"),
    "attributes that do not end": lambda n: page(b"<p " + names(8 * n)),
    "attributes after a quoted bracket": lambda n: page(b"<p x='>' " + names(8 * n) + b">x</p>"),
    "attributes with values": lambda n: page(b"<p " + names(8 * n).replace(b" ", b"='1' ") + b">x</p>"),
    "quotes": lambda n: page(b"<p a='\"" * n),
    "class": lambda n: page(b"<p class='" + b"cookie-" * n + b"'>x</p>"),
    "style": lambda n: page(b"<p style='" + b"display " * n + b"'>x</p>"),
    "punycode": lambda n: b"<meta charset=punycode><p>" + b"a-b" * n,
    "idna": lambda n: b"<meta charset=idna><p>" + b"a.b" * n,
    "utf-7": lambda n: b"<meta charset=utf-7><p>" + b"+AGE-" * n,
    "digits in the title": lambda n: b"<html><head><title>" + b"1" * n + b"a</title></head><body>text",
    "meta": lambda n: b"<html><head>" + b"<meta name=x content=y>" * n + b"</head><body>text",
    "bold in paragraphs": lambda n: page(b"<b><p>" * n),
    "nested headings": lambda n: page(b"<h1><span>" * n),
    "nested tables": lambda n: page(b"<table><tr><td>a<td>b" * n),
    "nested lists": lambda n: page(b"<ul><li>a" * n),
    "nested asides": lambda n: page(b"<main>" + b"<section><aside>a" * n),
    "a long table": lambda n: page(b"<table>" + b"<tr><td>a<td>b" * n),
    "one long line": lambda n: page(b"word " * n),
}
MARKDOWN: dict[str, Make] = {
    "comments before the text": lambda n: b"<!-- a -->\n" * n + b"text",
    "comments that do not end": lambda n: markdown(b"<!--" * n),
    "open brackets": lambda n: markdown(b"[" * n),
    "nested brackets": lambda n: markdown(b"[" * n + b"]" * n),
    "open pictures": lambda n: markdown(b"![[" * n),
    "open links": lambda n: markdown(b"[a](<b" * n),
    "references": lambda n: markdown(b"".join(b"[a%d]: u\n" % i for i in range(n)) + b"[a0]" * n),
    "emphasis that does not end": lambda n: markdown(b"*a **a " * (n // 2)),
    "stars": lambda n: markdown(b"*" * n + b"a" + b"*" * n),
    "backticks": lambda n: markdown(b"".join(b"e" + b"`" * i for i in range(2 * math.isqrt(n)))),
    "nested quotes": lambda n: markdown(b">" * n + b"a"),
    "nested lists": lambda n: markdown(b"".join(b" " * i + b"* a\n" for i in range(2 * math.isqrt(n)))),
    "open tags": lambda n: markdown(b"<a " * n),
    "CDATA that does not end": lambda n: markdown(b"a <![CDATA[" * (n // 4)),
    "declarations that do not end": lambda n: markdown(b"a <!A " * n),
    "a wide table": lambda n: markdown(b"|a" * (n // 8) + b"|\n" + b"|-" * (n // 8) + b"|\n" + b"|a\n" * 20),
    "a long table": lambda n: markdown(b"|a|b|\n|-|-|\n" + b"|a|b|\n" * (n // 4)),
    "fences": lambda n: markdown(b"```\n" * n),
    "lines": lambda n: markdown(b"word\n" * n),
    "escapes": lambda n: markdown(b"\\*" * n),
    "front matter that does not end": lambda n: b"---\na: b\n" + b"---   - \n" * n,
}
TEXT: dict[str, Make] = {
    "comments": lambda n: b"<!-- a -->\n" * n + b"text",
    "a declaration that does not end": lambda n: b"<?xml " + b"?" * n + b"text",
    "a list item of many lines": lambda n: b"- a\n" + b"word\n" * n,
    "underlined lines": lambda n: b"a\n===\n" * n,
    "blank lines of blanks": lambda n: b"text" + (b"\n" + b" " * 50) * n,
    "blanks": lambda n: b"a\n" + b" " * n + b"b",
    "numbers": lambda n: b"1." * n + b" a",
    "tabs": lambda n: b"a\t" * n,
    "accents": lambda n: b"\xe4\xf6 caf\xe9 " * n,
}

W = (
    b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    b'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
    b'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"><w:body>'
)
RUN = b"<w:r><w:t>a</w:t></w:r>"


@cache
def sample(name: str) -> bytes:
    return (FILES / name).read_bytes()


def word(content: bytes, styles: bytes | None = None) -> bytes:
    parts = {"word/document.xml": lambda _: W + b"<w:p>" + RUN + b"</w:p>" + content + b"</w:body></w:document>"}
    if styles is not None:
        parts["word/styles.xml"] = lambda _: styles
        rels = (
            b'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="s" '
            b'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/styles" Target="styles.xml"/>'
            b"</Relationships>"
        )
        kind = b"application/vnd.openxmlformats-officedocument.wordprocessingml.styles+xml"
        override = b'<Override PartName="/word/styles.xml" ContentType="' + kind + b'"/></Types>'
        parts["word/_rels/document.xml.rels"] = lambda _: rels
        parts["[Content_Types].xml"] = lambda types: types.replace(b"</Types>", override)
    return replace_entries(sample("nested.docx"), parts)


def formula(begin: bytes, end: bytes, depth: int) -> bytes:
    depth = min(depth, 100)
    inside = begin * depth + b"<m:r><m:t>a</m:t></m:r>" + end * depth
    return word(b"<w:p><m:oMath>" + inside + b"</m:oMath></w:p>")


def styled(count: int) -> bytes:
    chain = b"".join(
        b'<w:style w:styleId="s%d"><w:basedOn w:val="s%d"/></w:style>' % (i, i + 1) for i in range(count // 8)
    )
    used = b"".join(b'<w:p><w:pPr><w:pStyle w:val="s%d"/></w:pPr>%b</w:p>' % (i, RUN) for i in range(count // 8))
    return word(used, W.partition(b"><w:body>")[0].replace(b"w:document", b"w:styles") + b">" + chain + b"</w:styles>")


DOCX: dict[str, Make] = {
    "empty runs beside paragraphs": lambda n: word(b"<w:r/>" * n),
    "attributes": lambda n: word(b"<w:p " + names(n).replace(b" ", b"='1' ") + b"='1'/>"),
    "roots in degrees": lambda n: formula(b"<m:rad><m:deg>", b"</m:deg></m:rad>", n),
    "fractions in fractions": lambda n: formula(b"<m:f><m:num>", b"</m:num></m:f>", n),
    "formulas in formulas": lambda n: word(
        b"<w:p><m:oMathPara>" + b"<m:oMath>" * 100 + b"<m:t>a</m:t>" * n + b"</m:oMath>" * 100 + b"</m:oMathPara></w:p>"
    ),
    "tables in tables": lambda n: word(
        b"<w:tbl><w:tr><w:tc/><w:tc>" * 50 + (b"<w:p>" + RUN + b"</w:p>") * (n // 2) + b"</w:tc></w:tr></w:tbl>" * 50
    ),
    "text boxes and their fallbacks": lambda n: word(
        b"<w:p><w:r><mc:AlternateContent><mc:Choice>"
        + b"<w:p/>" * n
        + b"</mc:Choice><mc:Fallback>"
        + b"<w:txbxContent/>" * n
        + b"</mc:Fallback></mc:AlternateContent></w:r></w:p>"
    ),
    "styles based on styles": styled,
    "runs": lambda n: word(b"<w:p>" + RUN * n + b"</w:p>"),
}

SHAPE = (
    b"<p:sp><p:nvSpPr><p:cNvPr id='9' name='x'/><p:cNvSpPr/><p:nvPr>%b</p:nvPr></p:nvSpPr><p:spPr/><p:txBody>%b"
    b"</p:txBody></p:sp>"
)
WORDS = b"<a:p><a:r><a:t>a</a:t></a:r></a:p>"


def slide(content: bytes) -> bytes:
    def filled(xml: bytes) -> bytes:
        return xml.replace(b"</p:spTree>", content + b"</p:spTree>")

    return replace_entries(sample("s03_hidden_slide.pptx"), {"ppt/slides/slide1.xml": filled})


PPTX: dict[str, Make] = {
    "titles": lambda n: slide(SHAPE % (b"<p:ph type='title'/>", WORDS) * n),
    "shapes in groups": lambda n: slide(b"<p:grpSp>" * 40 + SHAPE % (b"", WORDS) * (n // 4) + b"</p:grpSp>" * 40),
    "paragraphs": lambda n: slide(SHAPE % (b"", WORDS * n)),
}


def texts(places: list[tuple[float, float]], size: int = 2) -> bytes:
    return raw_pdf(b"".join(b"BT /F1 %d Tf %.2f %.2f Td (word) Tj ET\n" % (size, x, y) for x, y in places))


def bookmarks(count: int, first: bytes) -> bytes:
    """Each points to the next, and to `first` as its child, which makes it deep and circular."""
    items = (b"<</Title(t%d)/Parent 6 0 R%b/Next %d 0 R>>" % (i, first, 8 + i) for i in range(count))
    root = b"<</First 7 0 R/Last %d 0 R/Count %d>>" % (6 + count, count)
    return raw_pdf(b"BT /F1 9 Tf 9 700 Td (word) Tj ET", root, *items, catalog=b"/Outlines 6 0 R")


PDF: dict[str, Make] = {
    "words all over": lambda n: texts([(i * 37 % 600, i * 7919 % 780) for i in range(n // 2)]),
    "words in a grid": lambda n: texts([(6 * (i % 100), 780 - i * 0.04) for i in range(n // 2)]),
    "words on one another": lambda n: texts([(10, 400)] * n),
    "words of all sizes": lambda n: raw_pdf(
        b"".join(b"BT /F1 %d Tf 9 %.2f Td (w%d) Tj ET\n" % (1 + i % 90, 780 - 780 * i / n, i) for i in range(n // 2))
    ),
    "bookmarks": lambda n: bookmarks(n, b""),
    "bookmarks in a circle": lambda n: bookmarks(n, b"/First 7 0 R"),
}
CASES = [
    pytest.param(suffix, make, id=f"{suffix[1:]}: {name}")
    for suffix, cases in (
        (".html", HTML), (".md", MARKDOWN), (".txt", TEXT), (".docx", DOCX), (".pptx", PPTX), (".pdf", PDF)
    )
    for name, make in cases.items()
]  # fmt: skip


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    with ParserPool(load_settings(ingest_parse_timeout_s=30.0).ingest, 1, parse=timed) as made:
        yield made


def seconds(pool: ParserPool, path: Path) -> float:
    """The least of several times, or that of one where it is long: what else runs on the machine adds to it."""
    took = [float(pool.parse(path).title)]
    while len(took) < 3 and took[0] < 0.1:
        took.append(float(pool.parse(path).title))
    return min(took)


@pytest.mark.parametrize(("suffix", "make"), CASES)
def test_time_grows_with_the_file_and_no_faster(pool: ParserPool, tmp_path: Path, suffix: str, make: Make) -> None:
    paths = [tmp_path / f"{count}{suffix}" for count in (8, LENGTH, 4 * LENGTH)]
    for path in paths:
        path.write_bytes(make(int(path.stem)))
    assert parse_file(paths[0]).blocks  # what its reader refuses at the door measures nothing
    exponents = []
    for _ in range(3):  # a busy machine can spoil one measurement, a bad reader spoils them all
        _, short, long = (seconds(pool, path) for path in paths)
        exponents.append(math.log2(long / short) / 2)
        if long < VISIBLE_S or exponents[-1] < WORST:
            return
    pytest.fail(f"time grows with the power {min(exponents):.2f} of the length: {short:.3f}, {long:.3f} s")
