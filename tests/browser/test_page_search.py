"""The search tab."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from .library import SOURCE
from .page import Page

MINE = f"source_id={SOURCE}"


def _titles(page: Page) -> list[str]:
    page.one("#search-output:not([aria-busy])")
    return page.texts("#search-output .result h3")


def _choose(page: Page, name: str, value: str) -> None:
    page.one(f"label:has(input[name={name}][value={value}])").click()


def test_results_carry_title_heading_text_score_and_marked_words(page: Page) -> None:
    page.open("#search")
    page.search("vortices wind tunnel deck")
    first = page.one(".result")
    assert "suspension bridges" in first.find_element(By.CSS_SELECTOR, "h3").text
    assert first.find_element(By.CSS_SELECTOR, ".where").text == "Wind"
    assert float(first.find_element(By.CSS_SELECTOR, ".score").text) > 0
    marked = {mark.text.lower() for mark in first.find_elements(By.CSS_SELECTOR, "mark")}
    assert {"wind", "deck"} <= marked
    assert page.text("#result-count").endswith(("passage", "passages"))
    page.shows("#status", "found")


@pytest.mark.parametrize("mode", ["hybrid", "lexical", "dense"])
def test_modes(page: Page, mode: str) -> None:
    page.open("#search")
    page.search("sourdough starter yeast")
    _choose(page, "mode", mode)
    assert _titles(page)[0] == "Keeping a sourdough starter"
    assert page.all(f"input[name=mode][value={mode}]")[0].is_selected()
    assert (f"mode={mode}" in page.fragment()) == (mode != "hybrid")
    assert page.js("return document.getElementById('fusion').disabled") == (mode != "hybrid")


def test_fusion_and_dense_share(page: Page) -> None:
    page.open(f"#search?q=tides+moon&{MINE}&explain=1")
    page.shows(".explanation", "linear")
    page.js(
        "const a = document.getElementById('alpha'); a.value = 0.8;"
        "a.dispatchEvent(new Event('input', {bubbles: true})); a.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    assert page.text("#alpha-value") == "0.80"
    assert "alpha=0.8" in page.fragment()
    page.shows(".explanation", "alpha 0.8")
    _choose(page, "fusion", "rrf")
    page.gone("#alpha-row")
    assert "fusion=rrf" in page.fragment()
    page.shows(".explanation", "rrf")
    assert "Tides in a narrow bay" in _titles(page)


def test_what_is_left_out(page: Page) -> None:
    page.open(f"#search?q=water&{MINE}&size=50")
    assert "Tides in a narrow bay" in _titles(page)
    assert not page.one("#leave-out").get_attribute("open")
    page.one("#leave-out summary").click()
    page.one("[id='filter-not.topic_tags']").click()
    page.keys("sea", Keys.ENTER)
    page.one(".chip[aria-label='Remove Without tag sea']")
    assert "not.topic_tags=sea" in page.fragment()
    page.shows("#search-output:not([aria-busy]) .result h3", "Keeping a sourdough starter")
    assert "Tides in a narrow bay" not in _titles(page)
    page.open(f"#search?q=water&{MINE}&not.source_type=markdown&size=50")
    assert page.one("#leave-out").get_attribute("open")
    assert "Tides in a narrow bay" not in _titles(page)
    page.expected_errors = ["422"]
    page.open(f"#search?q=water&{MINE}&not.source_id={SOURCE}")
    page.shows("#search-output", "both name")


def test_filters_narrow_the_results(page: Page) -> None:
    page.open(f"#search?q=water&{MINE}&size=50")
    everything = set(_titles(page))
    assert {"Tides in a narrow bay", "Keeping a sourdough starter"} <= everything
    page.type("#filter-topic_tags", "sea")
    page.keys(Keys.ENTER)
    page.one(".chip[aria-label='Remove Tag sea']")
    page.shows("#search-output:not([aria-busy]) .result h3", "Tides in a narrow bay")
    assert set(_titles(page)) == {"Tides in a narrow bay", "The keeper's handbook of Skerry Point"}
    assert "topic_tags=sea" in page.fragment()
    page.one(".chip[aria-label='Remove Tag sea']").click()
    page.shows("#search-output:not([aria-busy]) .result h3", "Keeping a sourdough starter")
    page.open(f"#search?q=water&{MINE}&document_id=browser%2Ftides.md")
    assert set(_titles(page)) == {"Tides in a narrow bay"}
    page.open(f"#search?q=slide+water&{MINE}&source_type=pdf&size=50")
    assert all("Slide rules" in title for title in _titles(page))
    assert page.one("label:has(input[value=pdf]) span").is_displayed()
    assert page.js("return document.querySelector('input[value=pdf]').checked")


def test_date_range(page: Page) -> None:
    page.open(f"#search?q=cloves+of+Zanzibar&{MINE}&gte=2019-03-01&lte=2019-03-01")
    assert len(_titles(page)) == 1
    page.open(f"#search?q=cloves+of+Zanzibar&{MINE}&gte=2019-03-02&lte=2019-03-03")
    assert page.text("#result-count") == "No passages found"
    page.shows("#search-output .intro", "filters")


def test_click_on_a_tag_adds_it_as_a_filter(page: Page) -> None:
    page.open(f"#search?q=yeast+tides&{MINE}")
    page.one(".result:has(h3 a[href*=sourdough]) .tag").click()
    page.one(".chip[aria-label='Remove Tag food']")
    page.shows("#result-count", "passage")
    assert set(_titles(page)) == {"Keeping a sourdough starter"}


def test_explain_shows_each_leg_and_the_time_of_each_stage(page: Page) -> None:
    page.open(f"#search?q=mercury+lens+panels&{MINE}")
    _titles(page)
    page.one("#explain").click()
    page.one(".explanation")
    names = [name.text for name in page.one(".result .scores").find_elements(By.CSS_SELECTOR, "dt")]
    assert {"Lexical", "Dense"} <= set(names)
    stages = page.texts(".timings th")
    assert "Encode query" in stages
    assert stages[-1] == "Total"
    assert all(value.endswith((" ms", " s")) for value in page.texts(".timings td.number"))
    widths = page.js(
        "return [...document.querySelectorAll('.timings .bar-fill')].map(b => b.getBoundingClientRect().width)"
    )
    assert max(widths) > 10


def test_pages(page: Page) -> None:
    page.open(f"#search?q=the+keeper+water+wind+slide&{MINE}&size=5")
    first = [item.get_attribute("data-id") for item in page.all(".result")] if _titles(page) else []
    assert len(first) == 5
    buttons = page.all(".pages button")
    assert [button.is_enabled() for button in buttons] == [False, True]
    buttons[1].click()
    page.shows(".pages .meta", "Page 2")
    assert "from=5" in page.fragment()
    second = [item.get_attribute("data-id") for item in page.all(".result")]
    assert second
    assert not set(first) & set(second)
    assert page.texts(".result .rank")[0] == "6"
    page.driver.back()
    page.shows(".pages .meta", "Page 1")
    assert [item.get_attribute("data-id") for item in page.all(".result")] == first


def test_page_size(page: Page) -> None:
    page.open(f"#search?q=water&{MINE}")
    _titles(page)
    Select(page.one("#size")).select_by_visible_text("5")
    page.until(lambda _: "size=5" in page.fragment(), "the address does not name the size")
    page.one("#search-output:not([aria-busy])")
    assert len(_titles(page)) <= 5


def test_result_opens_its_document(page: Page) -> None:
    page.open(f"#search?q=fog+signal+horn&{MINE}")
    page.one(".result h3 a").click()
    page.shows("#panel .passage[aria-current]", "two blasts of three seconds")
    page.one("#panel-close").click()
    page.gone("#panel")
    assert page.fragment().startswith("#search?q=fog")
