"""HTML, Markdown and plain text."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

import pytest

from app.passage import BlockKind, SourceType
from tests.unit.ingest.formats.build import of_kind, parse_bytes, rejection

PAGE = b"""<!doctype html><html><head><title>Tea room</title>
<meta name="keywords" content="tea, opening"><style>p {color: red}</style></head>
<body><nav><a href="/">Home</a> <a href="/all">All pages</a></nav>
<main><h1>Tea room</h1><p>It opens at <b>seven</b>.</p><script>steal()</script>
<h2>Teas</h2><ul><li>Assam</li><li>Ceylon</li></ul>
<table><tr><th>Tea</th><th>Price</th></tr><tr><td>Assam</td><td>3</td></tr></table>
<pre>brew --long</pre><p hidden>Not to be seen</p><p style="display:none">Nor this</p></main>
<footer>Copyright</footer></body></html>"""


def test_html_without_its_furniture(tmp_path: Path) -> None:
    document = parse_bytes(tmp_path, "tea.html", PAGE)
    assert (document.title, document.tags, document.source_type) == ("Tea room", ("tea", "opening"), SourceType.HTML)
    assert of_kind(document, BlockKind.HEADING) == ["Tea room", "Teas"]
    assert of_kind(document, BlockKind.PARAGRAPH) == ["It opens at seven."]
    assert of_kind(document, BlockKind.LIST_ITEM) == ["Assam", "Ceylon"]
    assert of_kind(document, BlockKind.TABLE_ROW) == ["Tea | Price", "Assam | 3"]
    assert of_kind(document, BlockKind.CODE) == ["brew --long"]


def test_markdown_with_front_matter(tmp_path: Path) -> None:
    text = b"""---
title: Pump manual
tags: [pumps, Safety]
date: 2024-05-31
---
# Start

Prime it with **two litres**.

1. Open the valve
2. Close it

| a | b |
|---|---|
| 1 | 2 |

```sh
pump --prime
```
"""
    document = parse_bytes(tmp_path, "pump.md", text)
    assert (document.title, document.tags) == ("Pump manual", ("pumps", "Safety"))
    assert document.timestamp is not None
    assert document.timestamp.date().isoformat() == "2024-05-31"
    assert of_kind(document, BlockKind.PARAGRAPH) == ["Prime it with two litres."]
    assert of_kind(document, BlockKind.LIST_ITEM) == ["Open the valve", "Close it"]
    assert of_kind(document, BlockKind.TABLE_ROW) == ["a | b", "1 | 2"]
    assert of_kind(document, BlockKind.CODE) == ["pump --prime"]


@pytest.mark.parametrize(
    "front",
    [
        b"---\ntitle: [broken\n---\n",
        b"---\na: &x 1\nb: *x\n---\n",
        b'---\na: !!int ""\n---\n',
        b"---\na: !!bool x\n---\n",
        b"---\na: !!timestamp x\n---\n",
        b"---\na: " + b"9" * 5000 + b"\n---\n",
        b"---\na: " + b"[" * 5000 + b"\n---\n",
    ],
)
def test_broken_front_matter_is_a_warning(tmp_path: Path, front: bytes) -> None:
    document = parse_bytes(tmp_path, "a.md", front + b"# A\n\nText of it.\n")
    assert document.warnings
    assert of_kind(document, BlockKind.PARAGRAPH) == ["Text of it."]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_plain_text_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    words = "Der Schlüssel für den Heizungskeller hängt hinter der Tür. Über dem Haken klebt ein grünes Schild.\n"
    document = parse_bytes(tmp_path, "keys.txt", ("Schlüssel\n=========\n\n" + words * 4).encode(encoding))
    assert of_kind(document, BlockKind.HEADING) == ["Schlüssel"]
    assert any("hängt hinter der Tür" in block.text for block in document.blocks)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b" \n\t\n", "empty"),
        ("a.html", b"<html><body><script>x()</script></body></html>", "empty"),
        ("a.exe", b"MZ" + bytes(range(256)) * 4, "unsupported-type"),
        ("a.md", b"\x89PNG\r\n\x1a\n" + bytes(64), "unsupported-type"),
        ("a.zip", b"PK\x05\x06" + bytes(18), "unsupported-type"),
    ],
)
def test_what_can_not_be_read_says_why(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    assert rejection(tmp_path, name, data).reason == reason


@pytest.mark.parametrize("depth", [200, 20_000])
def test_deeply_nested_html_does_not_end_the_parser(tmp_path: Path, depth: int) -> None:
    data = b"<div>" * depth + b"<p>In the middle of it all.</p>" + b"</div>" * depth
    if depth > 1000:  # libxml2 stops reading there
        assert rejection(tmp_path, "deep.html", data).reason == "empty"
    else:
        assert of_kind(parse_bytes(tmp_path, "deep.html", data), BlockKind.PARAGRAPH) == ["In the middle of it all."]


@pytest.mark.parametrize("field", ["title", "tags", "date"])
@pytest.mark.parametrize(
    "value", ["0x" + "f" * 8000, "1e999", ".nan", "0001-01-01T00:00:00+14:00", "9999-12-31 23:59:59 -5"]
)
def test_a_strange_value_in_front_matter_costs_no_more_than_itself(tmp_path: Path, field: str, value: str) -> None:
    document = parse_bytes(tmp_path, "a.md", f"---\n{field}: {value}\n---\nText of it.\n".encode())
    assert of_kind(document, BlockKind.PARAGRAPH) == ["Text of it."]
    assert len(document.title) < 400
    assert document.timestamp is None or document.timestamp.astimezone(UTC)


@pytest.mark.parametrize(
    "named",
    ["undefined", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "hex", "zlib", "mbcs", "x-none", "-"],
)
def test_a_page_in_a_character_set_that_is_none_is_read_by_its_bytes(tmp_path: Path, named: str) -> None:
    page = f'<html><head><meta charset="{named}"></head><body><p>Der Schlüssel \\u0041 hängt dort.</p></body></html>'
    document = parse_bytes(tmp_path, "a.html", page.encode())
    assert of_kind(document, BlockKind.PARAGRAPH) == ["Der Schlüssel \\u0041 hängt dort."]


@pytest.mark.parametrize(
    ("named", "encoding"), [("Shift_JIS", "shift_jis"), ("gb2312", "gb2312"), ("EUC-KR", "euc_kr"), ("Big5", "big5")]
)
def test_a_page_in_its_declared_character_set(tmp_path: Path, named: str, encoding: str) -> None:
    text = {"shift_jis": "日本語の頁", "gb2312": "中文页面", "euc_kr": "한국어 문서", "big5": "中文頁面"}[encoding]
    page = f'<html><head><meta charset="{named}"></head><body><p>{text}</p></body></html>'
    assert of_kind(parse_bytes(tmp_path, "a.html", page.encode(encoding)), BlockKind.PARAGRAPH) == [text]


def test_confluences_own_elements(tmp_path: Path) -> None:
    page = (
        '<p>See <ac:link><ri:page ri:space-key="HR" ri:content-title="Holidays &gt; 2026" /></ac:link>.</p>'
        '<ac:structured-macro ac:name="code"><ac:parameter ac:name="language">sh</ac:parameter>'
        "<ac:plain-text-body><![CDATA[if a < b; then]]></ac:plain-text-body></ac:structured-macro>"
        '<ac:structured-macro ac:name="info"><ac:parameter ac:name="icon" /><ac:rich-text-body><p>Mind the gap.</p>'
        "</ac:rich-text-body></ac:structured-macro><p><![CDATA[1 < 2]]></p>"
    )
    document = parse_bytes(tmp_path, "a.html", page.encode())
    assert of_kind(document, BlockKind.CODE) == ["if a < b; then"]
    assert of_kind(document, BlockKind.PARAGRAPH) == ["See Holidays > 2026.", "Mind the gap.", "1 < 2"]


def test_many_underlined_lines_are_headings(tmp_path: Path) -> None:
    document = parse_bytes(tmp_path, "a.txt", b"".join(b"Part %d\n======\n" % number for number in range(3000)))
    assert of_kind(document, BlockKind.HEADING)[::1000] == ["Part 0", "Part 1000", "Part 2000"]


def test_attributes_beyond_any_use_are_left_out(tmp_path: Path) -> None:
    much = " ".join(f"data-{number}='{number}'" for number in range(200_000))
    page = (
        f'<p class="sr-only" {much}>Hidden.</p><p title="a > b" {much}>Shown.</p><img src="{"A" * 99999}" alt="A lamp">'
    )
    document = parse_bytes(tmp_path, "a.html", page.encode())
    assert of_kind(document, BlockKind.PARAGRAPH) == ["Shown.", "A lamp"]
