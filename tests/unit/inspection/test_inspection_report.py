from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import orjson
from lxml import html

from app.config.retrieval import OpenSearchSettings
from app.inspection.fields import TextField, VectorField
from app.inspection.findings import Bars, Curve, Finding, Severity, ok, skipped
from app.inspection.plots import draw_bars, draw_curve
from app.inspection.reader import Reader, TimeBudget
from app.inspection.report import as_dict, as_html
from app.inspection.run import Inspection
from app.inspection.subject import Subject

HOSTILE = """<script>alert("1")</script></svg> & 'x' \x1b[31m \u202e {{ 7*7 }}"""
POINTS = tuple((x / 10, x / 10, x / 10 - 0.05, x / 10 + 0.05) for x in range(11))


def inspection(text: str = "harmless") -> Inspection:
    reader = Reader(OpenSearchSettings(url="http://ops:secret@127.0.0.1:9200"), TimeBudget.after(1000))
    field = VectorField(text, 4, "l2", "faiss", "hnsw")
    subject = Subject(reader, text, {text: {}}, TextField(text, (text,)), field)
    findings = (
        Finding(
            Severity.CRITICAL, text, text, text, {"score": -9.5e9}, Bars(text, text, {text: 1.0}, {text: 2.0}), "one"
        ),
        Finding(Severity.WARNING, "title", "seen", "do", {}, Curve(text, text, text, POINTS, {text: 0.5}), "two"),
        skipped("Storage", "the user may not"),
        ok("Fine", "all of it"),
    )
    return Inspection(subject, findings, 1.25)


def test_the_json_has_every_finding_and_no_password() -> None:
    content = orjson.loads(orjson.dumps(as_dict(inspection())))
    assert [item["severity"] for item in content["findings"]] == ["critical", "warning", "not run", "ok"]
    assert content["findings"][2]["evidence"] == "not run, because the user may not"
    assert content["findings"][0]["figures"] == {"score": -9.5e9}
    assert content["address"] == "http://ops:***@127.0.0.1:9200"
    assert "secret" not in as_html(inspection())


def test_the_page_needs_nothing_from_outside() -> None:
    page = as_html(inspection())
    tree = html.fromstring(page)
    assert not tree.xpath("//script|//link|//img|//iframe|//@src|//@href")
    assert re.findall(r"https?://[^\s\"'<]+", page) == ["http://ops:***@127.0.0.1:9200"]
    assert "default-src 'none'" in page
    assert len(tree.xpath("//figure")) == 2


def test_foreign_names_and_texts_are_only_text() -> None:
    page = as_html(inspection(HOSTILE))
    tree = html.fromstring(page)
    assert not tree.xpath("//script")
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "{{ 7*7 }}" in page


def test_plots_are_well_formed() -> None:
    for drawing in (
        draw_bars(Bars(HOSTILE, HOSTILE, {HOSTILE: 3.0, "none": 0.0}, {HOSTILE: 5.0})),
        draw_bars(Bars("empty", "GB", {"a": 0.0})),
        draw_curve(Curve(HOSTILE, HOSTILE, HOSTILE, POINTS, {HOSTILE: 0.2})),
        draw_curve(Curve("flat", "x", "y", tuple((x, 1.0, 1.0, 1.0) for x in (0.0, 1.0)))),
    ):
        numbers = [float(number) for number in re.findall(r'\b(?:x|y|width|height)="([^"]*)"', drawing)]
        assert ET.fromstring(drawing).tag == "svg"  # noqa: S314 - our own
        assert all(-1 <= number <= 1000 for number in numbers)


def test_bars_are_as_long_as_their_values() -> None:
    root = ET.fromstring(draw_bars(Bars("sizes", "GB", {"a": 2.0, "b": 1.0})))  # noqa: S314 - our own
    first, second = (float(bar.attrib["width"]) for bar in root.iter("rect"))
    assert first == 2 * second
