"""What the page says when something goes wrong, and when there is nothing yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from .conftest import watched
from .library import put_in
from .page import Page


@pytest.fixture
def page_with_key(_driver: Chrome, braid_url_with_key: tuple[str, str]) -> Iterator[tuple[Page, str]]:
    """The page of a service that wants a key, and the key."""
    url, key = braid_url_with_key
    put_in(url, {"Authorization": f"Bearer {key}"})
    for page in watched(_driver, url):
        yield page, key


@pytest.mark.parametrize("tab", ["ask", "search"])
def test_problem_document_is_shown_in_full(page: Page, tab: str) -> None:
    page.expected_errors = ["422"]
    page.open(f"#{tab}?q={'x' * 5000}")
    problem = page.text(".problem[role=alert]")
    assert "Invalid input" in problem
    assert "body.query" in problem
    assert "4096" in problem
    assert "Status 422" in problem
    assert page.text(".problem .meta code") != ""
    page.one(".problem button").click()
    page.shows(".problem h2", "Invalid input")


def test_page_past_the_window(page: Page) -> None:
    page.expected_errors = ["422"]
    page.open("#search?q=water&size=50&from=90")
    page.shows(".problem .field-errors", "body.size")


def test_degraded_search_names_stage_and_reason(page: Page) -> None:
    words = [f"{a}{b}" for a in "abcdefghijklmnopqrstuvwxyz" for b in "0123456789abcdefghijklmnopqrstuvwxyz"]
    page.open(f"#search?q={'+'.join(['water', *words])}")
    page.shows(".degraded dt", "lexical")
    page.shows(".degraded dd", "800 longest words")


@pytest.mark.parametrize("tab", ["ask", "search"])
def test_offline_and_back(page: Page, tab: str) -> None:
    page.expected_errors = ["ERR_INTERNET_DISCONNECTED"]
    page.open(f"#{tab}")
    page.cdp("Network.enable")
    page.network(offline=True)
    page.type(f"#{tab}-box", "tides and the moon")
    page.keys(Keys.ENTER)
    page.shows(".problem h2", "offline")
    page.network()
    page.one(".problem button").click()
    page.gone(".problem")
    page.shows(".result h3", "Tides in a narrow bay")


def test_key_is_asked_for_used_and_forgotten(page_with_key: tuple[Page, str]) -> None:
    page, key = page_with_key
    page.expected_errors = ["401"]
    page.open("#search?q=tides+moon")
    page.shows("#key-detail", "Authorization: Bearer")
    assert page.focused() == "key-input"
    page.type("#key-input", "two words")
    page.keys(Keys.ENTER)
    page.shows("#key-error", "printable ASCII")
    page.type("#key-input", "wrong")
    page.keys(Keys.ENTER)
    page.until(lambda _: page.js("return document.getElementById('key-input').value") == "", "no second question")
    page.one("#key-dialog[open]")
    page.type("#key-input", key)
    page.keys(Keys.ENTER)
    page.shows(".result h3", "Tides in a narrow bay")
    page.gone("#key-dialog")
    assert page.js("return [localStorage.length, Object.values(sessionStorage)]") == [0, [key]]
    page.open("#ask?q=What+raises+two+bulges+of+water%3F")
    page.one(".answer.complete .mark")
    page.one("#key-button").click()
    page.one("#key-forget").click()
    page.gone("#key-button")
    page.open("#search?q=tides+moon")
    page.one("#key-cancel").click()
    page.shows(".problem h2", "Not authenticated")


@pytest.mark.parametrize(
    ("change", "heading", "part"),
    [
        ("body.passages = 0", "No documents yet", "braid ingest path/to/folder"),
        (
            "body.ready = false; body.problems = ['pipeline braid-linear is missing']",
            "not ready",
            "braid-linear is missing",
        ),
    ],
)
def test_state_of_the_store(page: Page, change: str, heading: str, part: str) -> None:
    """The service's own /readyz answer, with one thing changed on its way to the page."""
    script = (
        "const real = window.fetch; window.fetch = async (...call) => { const response = await real(...call);"
        " if (call[0] !== '/readyz') return response; const body = await response.json();"
        f" if (!('passages' in body)) throw new Error('no count in /readyz'); {change}; return Response.json(body); }}"
    )
    with page.before_load(script):
        page.open()
        page.shows("#store-notice h2", heading)
        page.shows("#store-notice", part)
    page.open()
    page.until(
        lambda _: page.js("return document.getElementById('store-notice').dataset.settled") == "yes", "not settled"
    )
    page.gone("#store-notice .notice")
