"""Document text, titles and tags from strangers are text, whatever they hold."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import app

from .library import HOSTILE_ID, HOSTILE_TAG, HOSTILE_TEXT, HOSTILE_TITLE, SOURCE
from .page import Page

_FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML|srcdoc"
    r"|\beval\(|new Function"
)


def test_hostile_document_in_search(page: Page) -> None:
    page.open(f"#search?q=Zanzibar+cloves&source_id={SOURCE}")
    page.shows(".result h3", HOSTILE_TITLE)
    page.shows(".result .text", "<svg onload=")
    page.shows(".result .tag", HOSTILE_TAG)
    _nothing_but_text(page, "#search-output")
    page.one(".result .tag").click()
    page.one(".chip")
    page.shows(".result h3", HOSTILE_TITLE)
    _nothing_but_text(page, "#search-form .chips")


def test_hostile_document_in_answer_and_panel(page: Page) -> None:
    page.open("#ask")
    page.ask("For how many days are cloves of Zanzibar dried in the sun?")
    page.shows(".sources h3", HOSTILE_TITLE)
    _nothing_but_text(page, "#ask-output")
    page.one(".sources h3 a[href*=hostile]").click()
    page.shows("#panel-title", HOSTILE_TITLE)
    shown = page.js("return [...document.querySelectorAll('#panel .passage')].map(p => p.textContent).join(' ')")
    assert " ".join(shown.split()) == " ".join(HOSTILE_TEXT.split())
    assert page.all("#panel a") == [], "a javascript: address became a link"
    _nothing_but_text(page, "#panel")
    assert page.fragment().startswith(f"#document/{quote(HOSTILE_ID, safe='')}/")


def test_hostile_address(page: Page) -> None:
    page.open("#search?q=%3Cimg%20src%3Dx%20onerror%3Dwindow.pwned%3D1%3E&mode=%3Cb%3E&size=%3Cb%3E")
    page.expected_errors = ["422"]
    page.one("#search-output .problem")
    _nothing_but_text(page, "#search-output")
    page.open("#document/%E0%A4%A/x")
    page.one("#ask-box")


def test_no_code_of_the_page_parses_html() -> None:
    static = Path(app.__file__).parent / "web" / "static"
    scripts = sorted(static.glob("*.js"))
    assert len(scripts) > 10
    assert {path.name: _FORBIDDEN.findall(path.read_text()) for path in scripts} == {path.name: [] for path in scripts}
    markup = (static.parent / "templates" / "index.html").read_text()
    assert (
        re.findall(
            r"\son\w+\s*=|style\s*=|<style|<script(?![^>]*\ssrc=\"/static/)|(?:src|href)=\"(?:https?:)?//", markup
        )
        == []
    )


def _nothing_but_text(page: Page, css: str) -> None:
    found = page.js(
        "return document.querySelectorAll(`${arguments[0]} :is(script, img, iframe, svg:not(.vote-button > svg),"
        " object, embed, b)`).length",
        css,
    )
    assert found == 0
    attributes = page.js(
        "return [...document.querySelectorAll(`${arguments[0]} *`)]"
        ".flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on'))",
        css,
    )
    assert attributes == []
