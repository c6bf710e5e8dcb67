"""Saying of a result, or of an answer, whether it was relevant; what the search leaves out and says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from tests.conftest import running_braid

from .conftest import watched
from .library import HOSTILE_TITLE, SOURCE, Library
from .page import Page

QUESTION = "How many turns of the crank does it take to wind the clockwork of the lens?"
FIRST = ".result:first-child .vote-button"
OF_ANSWER = ".answer-foot .vote-button"


@pytest.fixture
def cluster(braid_up: dict[str, Any]) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=braid_up["opensearch_url"], timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def page_without_log(_driver: Chrome, library: Library, braid_up: dict[str, Any]) -> Iterator[Page]:
    """The page of a second service on the same cluster, which keeps no query log."""
    env = {"BRAID_OPENSEARCH_URL": braid_up["opensearch_url"], "BRAID_QUERY_LOG": "off"}
    with running_braid(env=env) as up:
        yield from watched(_driver, up["url"])


def _entries(cluster: httpx2.Client, **fields: str) -> list[dict[str, Any]]:
    """What the log holds, newest first, with these fields as they are."""
    cluster.post("/braid-queries-*/_refresh").raise_for_status()
    body = {"size": 1000, "sort": [{"timestamp": "desc"}]}
    hits = cluster.post("/braid-queries-*/_search", json=body).raise_for_status().json()["hits"]["hits"]
    found = [{"_index": hit["_index"], "_id": hit["_id"], **hit["_source"]} for hit in hits]
    return [entry for entry in found if fields.items() <= entry.items()]


def _logged(page: Page, cluster: httpx2.Client, query: str) -> dict[str, Any]:
    """The newest entry of a query; waited for, the service writes it a moment later."""
    found = page.until(lambda _: _entries(cluster, kind="query", query=query), f"{query!r} is not in the log")
    newest: dict[str, Any] = found[0]
    return newest


def _said(cluster: httpx2.Client, query: dict[str, Any]) -> list[tuple[str | None, str]]:
    found = _entries(cluster, kind="feedback", query_id=query["query_id"])
    return [(entry.get("result_id"), entry["label"]) for entry in found]


def _pressed(page: Page, css: str) -> list[str]:
    return list(page.js("return [...document.querySelectorAll(arguments[0])].map(b => b.ariaPressed)", css))


def _press(page: Page, css: str, *expected: str) -> None:
    page.one(css).click()
    page.until(lambda _: _pressed(page, css.rpartition(".")[0]) == list(expected), f"{css!r} is not {expected}")


def test_a_result_is_judged_and_the_judgement_changed(page: Page, cluster: httpx2.Client) -> None:
    words = "fog signal horn compressor"
    page.open("#search")
    page.search(words)
    first = str(page.one(".result").get_attribute("data-id"))
    assert [button.accessible_name for button in page.all(FIRST)] == ["Relevant", "Not relevant"]
    assert [button.get_attribute("title") for button in page.all(FIRST)] == ["Relevant", "Not relevant"]
    assert "keeper's handbook" in page.one(".result:first-child .vote-buttons").accessible_name
    assert _pressed(page, FIRST) == ["false", "false"]
    _press(page, f"{FIRST}.relevant", "true", "false")
    page.shows("#status", "Marked as relevant")
    query = _logged(page, cluster, words)
    assert _said(cluster, query) == [(first, "relevant")]
    _press(page, f"{FIRST}.irrelevant", "false", "true")
    assert _said(cluster, query) == [(first, "irrelevant")]
    assert _pressed(page, ".result:nth-child(2) .vote-button") == ["false", "false"]
    assert page.all(".vote-error:not([hidden])") == []


def test_an_answer_and_its_sources_are_judged_by_keyboard(page: Page, cluster: httpx2.Client) -> None:
    page.open("#ask")
    page.ask(QUESTION)
    page.js("document.querySelector(arguments[0]).focus()", f"{OF_ANSWER}.relevant")
    page.keys(Keys.TAB)
    page.keys(Keys.SPACE)
    page.until(lambda _: _pressed(page, OF_ANSWER) == ["false", "true"], "the space bar pressed nothing")
    assert "irrelevant" in page.js("return document.activeElement.className"), "the focus was lost"
    _press(page, f".sources {FIRST}.relevant", "true", "false")
    source = str(page.one(".sources .result").get_attribute("data-id"))
    said = _said(cluster, _logged(page, cluster, QUESTION))
    assert len(said) == 2
    assert set(said) == {(None, "irrelevant"), (source, "relevant")}


def test_what_is_no_answer_or_is_not_in_the_log_has_no_buttons(page: Page) -> None:
    page.open("#ask")
    page.ask("Qwxzvk jjtrp bbnmgh?")
    assert page.all(OF_ANSWER) == []
    got = page.module(
        "const { resultVote } = await import('/static/feedback.js');"
        "return [resultVote('q', {id: 'r'}, 19), resultVote('q', {id: 'r'}, 20), resultVote(undefined, {id: 'r'}, 0)]"
        ".map(vote => vote !== null)"
    )
    assert got == [True, False, False]


def test_a_query_that_is_no_longer_in_the_log(page: Page, cluster: httpx2.Client) -> None:
    page.expected_errors = ["404"]
    words = "mercury bath of the lens"
    page.open("#search")
    page.search(words)
    query = _logged(page, cluster, words)
    _press(page, f"{FIRST}.relevant", "true", "false")
    cluster.delete(f"/{query['_index']}/_doc/{query['_id']}").raise_for_status()
    page.one(f"{FIRST}.irrelevant").click()
    page.shows(".result:first-child .vote-error", f"there is no query '{query['query_id']}'")
    assert _pressed(page, FIRST) == ["true", "false"], "what is stored is no longer shown"
    assert page.js("return document.querySelector('.vote-error:not([hidden])').role") == "alert"
    assert page.one(f"{FIRST}.irrelevant").get_attribute("aria-disabled") == "false"


def test_offline_and_back(page: Page) -> None:
    page.expected_errors = ["ERR_INTERNET_DISCONNECTED"]
    page.open("#search")
    page.search("spirits of wine and a linen cloth")
    page.cdp("Network.enable")
    page.network(offline=True)
    page.one(f"{FIRST}.relevant").click()
    page.shows(".result:first-child .vote-error", "no network connection")
    assert _pressed(page, FIRST) == ["false", "false"]
    page.network()
    _press(page, f"{FIRST}.relevant", "true", "false")
    page.gone(".vote-error")


def test_a_service_without_a_log_says_so_once(page_without_log: Page) -> None:
    page = page_without_log
    page.expected_errors = ["501"]
    page.open("#search")
    page.search("tides and the moon")
    assert len(page.all(".vote-button")) > 2
    page.one(f"{FIRST}.relevant").click()
    page.shows(".result:first-child .vote-error", "BRAID_QUERY_LOG=off")
    page.gone(".vote-button")
    assert page.js("return document.activeElement.className") == "vote-error"
    page.search("sourdough starter yeast")
    assert page.all(".vote") == []
    page.one("#tab-ask").click()
    page.ask(QUESTION)
    assert page.all(".vote") == []


def test_what_the_service_says_is_text(page: Page) -> None:
    page.expected_errors = ["404"]
    script = (
        "const real = window.fetch; window.fetch = async (...call) => call[0] !== '/v1/feedback' ? real(...call)"
        " : Response.json({title: 'x', status: 404, detail: '<img src=x onerror=window.pwned=1><b>no</b>'},"
        " {status: 404})"
    )
    with page.before_load(script):
        page.open(f"#search?q=Zanzibar+cloves&source_id={SOURCE}")
    page.one(f"{FIRST}.relevant").click()
    page.shows(".vote-error", "<img src=x onerror=window.pwned=1><b>no</b>")
    names = page.js("return [...document.querySelectorAll('.vote-buttons')].map(g => g.ariaLabel)")
    assert any(HOSTILE_TITLE in name for name in names)
    assert page.js("return document.querySelectorAll('.vote :is(img, b, script)').length") == 0


def test_near_copies_are_folded_and_counted(page: Page, library: Library) -> None:
    text = (
        "The quetzal census of Verapaz counts nests in the cloud forest at first light, when the males call from the "
        "crowns of the wild avocado trees and the mist still lies in the valley below the old sawmill road."
    )
    ids = [f"browser-copies-{number}" for number in range(3)]
    with httpx2.Client(base_url=library.url, timeout=60, trust_env=False) as client:
        try:
            for number, document_id in enumerate(ids):
                document = {
                    "document_id": document_id,
                    "title": f"Census {number}",
                    "text": text,
                    "source_id": "copies",
                }
                client.post("/v1/documents", json=document).raise_for_status()
            page.open("#search?q=quetzal+census+Verapaz&source_id=copies")
            page.shows(".result .same", "and 2 nearly the same")
            assert len(page.all(".result")) == 1
            page.shows(".left-out", "shown once")
            page.gone(".pages")
        finally:
            for document_id in ids:
                client.delete(f"/v1/documents/{document_id}")


def test_three_passages_of_a_document_unless_it_is_asked_for(page: Page) -> None:
    page.open(f"#search?q=the+keeper+and+the+lamp&source_id={SOURCE}&size=50")
    page.shows(".left-out", "of each document the best 3")
    titles = page.texts("#search-output .result h3")
    assert titles.count("The keeper's handbook of Skerry Point") == 3
    assert max(titles.count(title) for title in titles) == 3
    page.open("#search?q=the+keeper+and+the+lamp&document_id=browser%2Flighthouse.md&size=50")
    page.one("#search-output:not([aria-busy]) .count")
    assert len(page.all(".result")) > 3
    assert page.all(".left-out") == []


def test_a_citation_shows_its_own_page(page: Page) -> None:
    """The service's own answer from the PDF, quoted as if from the page before."""
    script = (
        "const real = window.fetch; window.fetch = async (...call) => { const response = await real(...call);"
        " if (call[0] !== '/v1/answer') return response; const text = await response.text();"
        ' return new Response(text.replace(/("page":)3(,"quote":)/g, \'$12$2\'), response); }'
    )
    question = "What frees a slide of boxwood that sticks in damp air?"
    page.open("#ask")
    page.ask(question)
    mark = page.one("#answer-text .mark")
    assert mark.accessible_name == "Citation 1, page 3: Slide rules in the office"
    assert str(mark.get_attribute("title")).endswith("\nPage 3")
    assert page.text(".sources .result.cited .where") == "Page 3"
    with page.before_load(script):
        page.open("#ask")
    page.ask(question)
    assert page.one("#answer-text .mark").accessible_name == "Citation 1, page 2: Slide rules in the office"
    assert page.text(".sources .result.cited .where") == "Page 3 · quoted from page 2"
