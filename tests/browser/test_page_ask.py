"""Asking, citations, the document panel."""

from __future__ import annotations

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from .library import PDF_PAGES
from .page import Page

QUESTION = "How many turns of the crank does it take to wind the clockwork of the lens?"


def _slowly(milliseconds: int) -> str:
    """A script that lets the service's own event stream through one event at a time, with a pause before each."""
    return (
        "const real = window.fetch; window.fetch = async (...call) => { const response = await real(...call);"
        " if (call[0] !== '/v1/answer') return response;"
        " const events = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new TransformStream({"
        " async transform(text, out) { for (const event of text.split(/(?<=\\n\\n)/)) {"
        f" await new Promise(next => setTimeout(next, {milliseconds})); out.enqueue(event); }} }} }}));"
        " return new Response(events.pipeThrough(new TextEncoderStream()), response); }"
    )


def test_answer_streams_in_and_names_its_sources(page: Page) -> None:
    with page.before_load(_slowly(150)):
        page.open("#ask")
    # keeps what was to be seen whenever it changed
    page.js(
        "window.seen = []; new MutationObserver(() => { const text = document.getElementById('answer-text');"
        " if (text) window.seen.push({busy: text.ariaBusy === 'true', text: text.innerText.trim() !== '',"
        " marks: text.querySelector('.mark') !== null, sources: document.querySelector('.sources .result') !== null});"
        "}).observe(document.getElementById('ask-output'), {subtree: true, childList: true, attributes: true})"
    )
    page.ask(QUESTION)
    assert "one hundred and sixty" in " ".join(page.text("#answer-text").split())
    assert page.texts("#answer-text .mark")[0] == "1"
    assert any("keeper's handbook" in title for title in page.texts(".sources h3"))
    assert page.texts(".sources .result.cited .marker")
    seen = page.js("return window.seen")
    steps = [
        {"busy": True, "text": False, "marks": False, "sources": True},
        {"busy": True, "text": True, "marks": False, "sources": True},
        {"busy": True, "text": True, "marks": True, "sources": True},
        {"busy": False, "text": True, "marks": True, "sources": True},
    ]
    assert [step for step in steps if step in seen] == steps
    assert [seen.index(step) for step in steps] == sorted(seen.index(step) for step in steps)
    page.shows("#status", "Answer complete")


def test_stop_in_the_middle_keeps_what_has_arrived(page: Page) -> None:
    with page.before_load(_slowly(1500)):
        page.open("#ask")
    page.type("#ask-box", QUESTION)
    page.keys(Keys.ENTER)
    arrived = page.until(lambda _: next(iter(page.texts("#answer-text")), ""), "no text has arrived")
    page.one("#ask-stop").click()
    page.shows(".answer .notice", "Stopped")
    assert page.text("#answer-text").startswith(arrived)
    assert page.all("#answer-text .mark") == []
    page.gone("#ask-stop")


def test_an_extractive_answer_says_how_to_connect_a_model(page: Page) -> None:
    page.open("#ask")
    page.ask(QUESTION)
    hint = page.text(".hint")
    assert "BRAID_LLM_URL" in hint
    assert "braid up --llm local" in hint


def test_citation_opens_at_its_passage_with_the_quote_marked(page: Page) -> None:
    page.open("#ask")
    page.ask(QUESTION)
    mark = page.one("#answer-text .mark")
    quote = " ".join(str(mark.get_attribute("title")).split())
    mark.click()
    marked = page.one("#panel .passage[aria-current] mark")
    assert " ".join(marked.text.split()) == quote
    assert page.text("#panel-title") == "The keeper's handbook of Skerry Point"
    page.shows("#panel h3", "Winding the clockwork")
    assert page.js("return document.querySelectorAll('#panel .passage').length") >= 6
    inside = page.js(
        "const m = arguments[0].getBoundingClientRect();"
        "const b = document.getElementById('panel-body').getBoundingClientRect();"
        "return m.top >= b.top && m.bottom <= b.bottom",
        marked,
    )
    assert inside, "the quote is not in sight"
    assert page.js("return document.getElementById('panel-body').scrollTop") > 0, "it took no scrolling to get there"
    assert page.fragment().startswith("#document/browser%2Flighthouse.md/")


def test_page_number_of_a_pdf(page: Page) -> None:
    page.open("#ask")
    page.ask("What frees a slide of boxwood that sticks in damp air?")
    page.one("#answer-text .mark").click()
    current = page.one("#panel .passage[aria-current]")
    assert "Talcum" in current.text
    marks = page.texts("#panel .page-mark")
    assert marks == [f"Page {number}" for number in range(1, len(PDF_PAGES) + 1)]
    before = current.find_elements(By.XPATH, "preceding-sibling::p[contains(@class, 'page-mark')]")
    assert before[-1].text == "Page 3"
    page.keys(Keys.ESCAPE)
    page.gone("#panel")
    page.shows(".sources .where", "Page 3")


def test_address_names_question_and_passage(page: Page) -> None:
    page.open("#ask")
    page.ask(QUESTION)
    asked = page.fragment()
    assert asked.startswith("#ask?q=How+many+turns")
    page.one("#answer-text .mark").click()
    page.one("#panel .passage[aria-current]")
    linked = page.fragment()
    answer = page.one(".answer")
    page.driver.back()
    page.gone("#panel")
    assert page.fragment() == asked
    assert answer.is_displayed(), "going back asked the question anew"
    page.driver.forward()
    page.one("#panel .passage[aria-current] mark")
    page.open(linked)
    assert "one hundred and" in " ".join(page.text("#panel .passage[aria-current]").split())
    page.open(asked)
    page.one(".answer.complete .mark")
    assert page.js("return document.getElementById('ask-box').value") == QUESTION


def test_document_that_does_not_exist(page: Page) -> None:
    page.expected_errors = ["404"]
    page.open("#document/no%2Fsuch/passage")
    page.shows("#panel .problem h2", "Not found")
    page.one("#panel-close").click()
    page.gone("#panel")
    assert page.fragment() == "#ask"


def test_passage_that_is_no_longer_there(page: Page) -> None:
    page.open(f"#document/browser%2Ftides.md/{'0' * 32}")
    page.shows("#panel .notice", "no longer in the document")
    page.shows("#panel .passage", "The moon raises two bulges")


def test_stop_cancels_the_request(page: Page) -> None:
    page.open("#ask")
    page.cdp("Network.enable")
    page.network(latency_ms=20_000)
    page.type("#ask-box", QUESTION)
    page.keys(Keys.ENTER)
    stop = page.one("#ask-stop")
    stop.click()
    page.shows(".answer .notice", "Stopped")
    page.gone("#ask-stop")
    page.one("#ask-submit")
    page.network()
    page.ask(QUESTION)
    assert page.texts("#answer-text .mark")


def test_no_answer_is_said_plainly(page: Page) -> None:
    page.open("#ask")
    page.ask("Qwxzvk jjtrp bbnmgh?")
    assert "No answer." in page.text(".abstained")
    assert page.all("#answer-text .mark") == []
