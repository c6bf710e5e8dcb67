"""Keyboard, themes, narrow screens, reduced motion."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from .library import SOURCE
from .page import Page

QUESTION = "ask?q=How+is+the+clockwork+of+the+lens+wound%3F"


def test_all_by_keyboard(page: Page) -> None:
    page.open("#ask")
    page.one("#ask-box")
    page.keys("/")
    assert page.focused() == "ask-box"
    page.keys("a/b")  # in a box a slash is a slash
    assert page.js("return document.activeElement.value") == "a/b"
    page.ask("How many turns of the crank does it take to wind the clockwork?")
    assert page.focused() == "ask-box"
    for _ in range(10):
        page.keys(Keys.TAB)
        if page.js("return document.activeElement.className") == "mark":
            break
    assert page.js("return document.activeElement.className") == "mark", "Tab does not reach the citation"
    outline = page.js("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus can't be seen"
    page.keys(Keys.ENTER)
    page.one("#panel .passage[aria-current]")
    assert page.focused() == "panel-title"
    page.keys(Keys.ESCAPE)
    page.gone("#panel")
    assert page.js("return document.activeElement.className") == "mark", "the focus did not come back"


def test_tabs_by_arrow_keys_and_roles(page: Page) -> None:
    page.open("#ask")
    assert page.one("[role=tablist]").is_displayed()
    page.js("document.getElementById('tab-ask').focus()")
    page.keys(Keys.ARROW_RIGHT)
    assert page.focused() == "tab-search"
    assert page.one("#tab-search").get_attribute("aria-selected") == "true"
    assert page.one("#view-search").get_attribute("aria-labelledby") == "tab-search"
    page.gone("#view-ask")
    page.keys(Keys.ARROW_RIGHT)
    assert page.focused() == "tab-ask"
    page.one("#view-ask")
    page.driver.back()
    page.one("#view-search")


def test_a_tab_is_found_again_as_it_was_left(page: Page) -> None:
    page.open(f"#search?q=tides&source_id={SOURCE}")
    page.shows(".result h3", "Tides")
    kept = page.one(".result")
    page.one("#tab-ask").click()
    page.one("#ask-box")
    page.one("#tab-search").click()
    assert kept.is_displayed()
    assert page.fragment() == f"#search?q=tides&source_id={SOURCE}"


def test_every_control_has_a_name(page: Page) -> None:
    page.open(f"#search?q=tides&source_id={SOURCE}&topic_tags=sea")
    page.one(".result")
    nameless = [
        control.get_attribute("outerHTML")
        for control in page.all("button, input, select, textarea, a, [role]")
        if control.is_displayed()
        and not control.accessible_name
        and control.get_attribute("role") not in {"status", None}
    ]
    assert nameless == []
    tabs = [control for control in page.all("button, input, select, textarea, a") if control.is_displayed()]
    assert len(tabs) > 10
    assert [control.get_attribute("outerHTML") for control in tabs if not control.accessible_name] == []


def _brightness(page: Page, css: str, of: str) -> float:
    """Of a computed colour, 0 to 1."""
    return float(
        page.js(
            "const c = document.createElement('canvas').getContext('2d'); c.fillStyle ="
            " getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]; c.fillRect(0, 0, 1, 1);"
            "const [r, g, b] = c.getImageData(0, 0, 1, 1).data;"
            "const l = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;"
            "return 0.2126 * l(r) + 0.7152 * l(g) + 0.0722 * l(b)",
            css,
            of,
        )
    )


def _contrast(page: Page, css: str, on: str) -> float:
    light, dark = sorted((_brightness(page, css, "color"), _brightness(page, on, "backgroundColor")), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_themes_follow_the_system_and_can_be_read(page: Page, scheme: str) -> None:
    page.media(prefers_color_scheme=scheme)
    page.open(f"#{QUESTION}")
    page.one(".answer.complete .mark").click()
    page.one("#panel .passage[aria-current] mark")
    assert (_brightness(page, "body", "backgroundColor") > 0.5) == (scheme == "light")
    # WCAG 2.2, 1.4.3: at least 4.5 to 1
    for text, ground in (
        ("#answer-text p", "body"),
        (".mark", ".mark"),
        (".result .text", "body"),
        (".result .where", "body"),
        (".vote-button", "body"),
        ("#ask-submit", "#ask-submit"),
        ("#panel mark", "#panel mark"),
        ("#panel-meta", "#panel"),
        (".passage[aria-current] .text", ".passage[aria-current]"),
    ):
        assert _contrast(page, text, ground) >= 4.5, text


def test_theme_button_overrules_the_system_and_is_remembered(page: Page) -> None:
    page.media(prefers_color_scheme="light")
    page.open()
    button = page.one("#theme-button")
    assert button.text == "Auto"
    button.click()
    button.click()
    assert button.text == "Dark"
    assert button.accessible_name == "Theme: dark"
    assert _brightness(page, "body", "backgroundColor") < 0.1
    page.open()
    assert page.text("#theme-button") == "Dark"
    assert _brightness(page, "body", "backgroundColor") < 0.1
    page.one("#theme-button").click()
    assert _brightness(page, "body", "backgroundColor") > 0.5


@pytest.mark.parametrize("width", [320, 360, 800, 1100, 1360])
def test_no_sideways_scrolling(page: Page, width: int) -> None:
    page.width(width)
    for fragment, ready in (
        (f"#{QUESTION}", ".answer.complete"),
        (
            f"#search?q=Zanzibar+cloves+tides&source_id={SOURCE}&explain=1&topic_tags=sea&topic_tags={'long' * 20}",
            ".count",
        ),
        (f"#search?q=Zanzibar+cloves+tides&source_id={SOURCE}&explain=1", ".explanation"),
    ):
        page.open(fragment)
        page.one(ready)
        if width < 700 and fragment.startswith("#search"):
            page.one("#options-toggle").click()
            page.one("#options #size")
        _fits(page, width)
        if page.all(".result h3 a"):
            page.all(".result h3 a")[0].click()
            page.one("#panel .passage[aria-current]")
            _fits(page, width)


def _fits(page: Page, width: int) -> None:
    assert page.js("return document.documentElement.scrollWidth") <= width
    over = page.js(
        "return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
        " && !e.closest('.hidden, .skip, pre')).map(e => e.outerHTML.slice(0, 120))"
    )
    assert over == []


def test_panel_covers_a_narrow_page(page: Page) -> None:
    page.width(360)
    page.open(f"#{QUESTION}")
    page.one(".answer.complete .mark").click()
    panel = page.one("#panel")
    page.one("#panel .passage[aria-current]")
    assert panel.rect["width"] == 360
    assert page.js("return document.getElementById('main').inert") is True
    page.keys(Keys.ESCAPE)
    page.gone("#panel")
    assert page.js("return document.getElementById('main').inert") is False
    page.one(".answer .mark")


def test_reduced_motion(page: Page) -> None:
    page.media(prefers_reduced_motion="reduce")
    page.open()
    page.one("#ask-submit")
    moving = page.js(
        "return [...document.querySelectorAll('*')].filter(e => { const s = getComputedStyle(e);"
        " return s.animationName !== 'none' || s.transitionDuration !== '0s'; }).length"
    )
    assert moving == 0
    page.media(prefers_reduced_motion="no-preference")
    duration = page.one("#ask-submit").find_element(By.XPATH, ".").value_of_css_property("transition-duration")
    assert duration != "0s"
