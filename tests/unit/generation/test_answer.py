"""Answers on the real embedding model, with a real HTTP endpoint in the language model's place."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Self

import pytest

from app.calibration import calibration_for
from app.config import load_settings
from app.deadline import Deadline
from app.embedding.encoder import Encoder
from app.errors import StoreUnavailable
from app.gateway.shares import Shares
from app.generation.answer import Answer, Event, Generator, whole_answer
from app.generation.citations import Citation
from app.generation.evidence import MAX_SENTENCES, Vectors, _candidates, weigh
from app.generation.prompt import UNKNOWN
from app.passage import Hit
from app.store.neighbours import Place
from tests.unit.generation.endpoint import Behaviour, Write, chunk, complete, endpoint, says
from tests.unit.generation.passages import hit

MINILM = calibration_for(load_settings().embedding, "all-MiniLM-L6-v2")
assert MINILM is not None
QUESTION = "How often does the lamp of the lighthouse turn?"
HITS = [
    hit("The lighthouse was built in 1870. Its lamp turns once a minute. Paint it white.", "a", "Lighthouse"),
    hit("Keepers of the lighthouse live in the cottage. They get two weeks of leave.", "b", "Lighthouse"),
]


def answer(encoder: Encoder, behaviour: Behaviour, timeout_s: float = 5, **endpoint_arguments: object) -> Answer:
    with endpoint(behaviour, **endpoint_arguments) as served:  # type: ignore[arg-type]
        generator = Generator(load_settings(llm_url=served.url, llm_model="small"), encoder, MINILM)
        found = generator.answer(QUESTION, HITS, timeout_s=timeout_s)
        generator.close()
    return found


def test_without_a_model_the_best_sentence_is_quoted(minilm: Encoder) -> None:
    found = Generator(load_settings(), minilm, MINILM).answer(QUESTION, HITS, timeout_s=5)
    assert (found.model, found.abstained, found.degraded) == ("extractive", False, ())
    assert found.text.startswith("Its lamp turns once a minute. [1]")
    assert (found.citations[0].marker, found.citations[0].document_id) == (1, "a")
    assert found.citations[0].quote == "Its lamp turns once a minute."


@pytest.mark.parametrize("question", ["Who won the chess world championship in 1972?", "asdf qwertz"])
def test_it_abstains_where_nothing_is_relevant_and_asks_no_model(minilm: Encoder, question: str) -> None:
    with endpoint(says(*complete("Bobby Fischer [1]."))) as served:
        generator = Generator(load_settings(llm_url=served.url, llm_model="small"), minilm, MINILM)
        found = generator.answer(question, HITS, timeout_s=5)
        assert generator.answer(question, [], timeout_s=5).abstained
        generator.close()
    assert (found.abstained, found.text, found.citations) == (True, UNKNOWN, ())
    assert served.requests == []


def test_without_a_calibration_it_answers_anything_and_says_so(minilm: Encoder) -> None:
    question = "Who won the chess world championship in 1972?"
    found = Generator(load_settings(), minilm, None).answer(question, HITS, timeout_s=5)
    assert not found.abstained
    assert found.degraded == (
        ("generation", "uncalibrated: whether the passages are about the question was not judged"),
    )
    nothing = Generator(load_settings(), minilm, None).answer(question, [], timeout_s=5)
    assert (nothing.abstained, nothing.degraded) == (True, ())


def test_the_model_s_words_with_their_citations(minilm: Encoder) -> None:
    found = answer(minilm, says(*complete("The lamp turns ", "once a minute [", "1][9].")))
    assert found.text == "The lamp turns once a minute [1]."
    assert [(c.marker, c.quote) for c in found.citations] == [(1, "Its lamp turns once a minute.")]
    assert found.dropped == ("[9]",)
    assert found.degraded == (("citations", "dropped: 1 marks named no passage"),)
    assert found.usage == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert found.model == "small"


def test_the_model_may_abstain(minilm: Encoder) -> None:
    found = answer(minilm, says(*complete(UNKNOWN)))
    assert (found.abstained, found.citations, found.degraded) == (True, (), ())


def test_an_answer_without_citations_is_marked(minilm: Encoder) -> None:
    assert answer(minilm, says(*complete("Often."))).degraded[0][0] == "citations"


@pytest.mark.parametrize(
    ("behaviour", "status", "reason"),
    [
        (says(b"{}"), 500, "refused"),
        (says(b"data: {no\n\n"), 200, "bad-answer"),
        (says(), 200, "broken-off"),
        (says(*complete(" ")), 200, "empty"),
        (lambda _, closing: closing.wait(30) and None, 200, "timeout"),
    ],
)
def test_a_model_that_fails_is_replaced_by_quotations(
    minilm: Encoder, behaviour: Behaviour, status: int, reason: str
) -> None:
    found = answer(minilm, behaviour, timeout_s=1, status=status)
    assert found.model == "extractive"
    assert "lamp turns once a minute" in found.text
    assert found.citations
    ((stage, why),) = found.degraded
    assert stage == "generation"
    assert why.startswith(f"{reason}: ")


def test_an_answer_that_breaks_off_is_kept_and_says_so(minilm: Encoder) -> None:
    found = answer(minilm, says(chunk("The lamp turns once a minute [1]. And")))
    assert (found.model, found.text) == ("small", "The lamp turns once a minute [1]. And")
    assert found.degraded == (("generation", "broken-off: the answer breaks off"),)


def test_the_prompt_s_bound_is_kept_and_said(minilm: Encoder) -> None:
    long = [hit("The lamp of the lighthouse turns. " + "Much more is said here. " * 60, f"d{n}") for n in range(3)]
    with endpoint(says(*complete("It turns [1]. Or [3]."))) as served:
        settings = load_settings(llm_url=served.url, llm_model="small", llm_context_tokens=800)
        found = Generator(settings, minilm, MINILM).answer(QUESTION, long, timeout_s=5)
    assert found.degraded[0] == ("generation", "context-cut: 2 of 3 passages fitted the prompt")
    assert found.dropped == ("[3]",)


def test_the_model_reads_the_neighbours_and_a_quote_from_one_names_it(minilm: Encoder) -> None:
    results = [hit("The lighthouse has a lamp. It was built in 1870.", "a", "Lighthouse", position=3, content_hash="v")]
    beside = hit("It turns once a minute.", "a", "Lighthouse", position=4, content_hash="v", page=9)
    with endpoint(says(*complete("It turns once a minute [1]."))) as served:
        generator = Generator(load_settings(llm_url=served.url, llm_model="small"), minilm, MINILM)
        found = generator.answer(QUESTION, results, timeout_s=5, nearby=lambda _: {Place("a", "v", 4): beside})
        generator.close()
    assert "It was built in 1870.\nIt turns once a minute." in served.requests[0]["messages"][1]["content"]
    assert found.citations == (Citation(1, "a-4", "a", "It turns once a minute.", 9),)
    assert found.degraded == ()


def test_without_the_store_the_model_reads_the_results_alone(minilm: Encoder) -> None:
    def away(_: Sequence[Place]) -> Mapping[Place, Hit]:
        raise StoreUnavailable("away")

    results = [replace(found, content_hash="v") for found in HITS]
    with endpoint(says(*complete("Once a minute [1]."))) as served:
        generator = Generator(load_settings(llm_url=served.url, llm_model="small"), minilm, MINILM)
        found = generator.answer(QUESTION, results, timeout_s=5, nearby=away)
        generator.close()
    assert found.degraded == (("context", "store-unavailable: neighbours were not added"),)
    assert found.citations[0].quote == "Its lamp turns once a minute."


def test_a_model_that_is_switched_off_is_not_asked_and_that_is_stated(minilm: Encoder) -> None:
    with endpoint(says(*complete("Once a minute [1]."))) as served:
        generator = Generator(load_settings(llm_url=served.url, llm_model="small"), minilm, MINILM)
        found = generator.answer(QUESTION, HITS, timeout_s=5, generate=False)
        generator.close()
    assert (found.model, served.requests) == ("extractive", [])
    assert found.degraded == (("generation", "switched-off: the flag generation is off, the answer is quoted"),)
    assert Generator(load_settings(), minilm, MINILM).answer(QUESTION, HITS, timeout_s=5, generate=False).degraded == ()


def test_more_answers_than_may_be_written_at_once_are_quoted(minilm: Encoder) -> None:
    def behave(write: Write, closing: threading.Event) -> None:
        write(chunk("Once "))
        closing.wait(60)

    with endpoint(behave) as served:
        generator = Generator(load_settings(llm_url=served.url, llm_model="small"), minilm, MINILM)
        places = Shares(6, work="llm", what="answers")

        def stream(caller: str) -> Iterator[Event]:
            return generator.stream(QUESTION, HITS, timeout_s=60, take_place=lambda: places.take(caller).release)

        written = [stream("slow") for _ in range(3)]
        assert [next(stream).text for stream in written] == ["Once ", "Once ", "Once "]
        found = whole_answer(stream("slow"))
        assert dict(found.degraded)["generation"].startswith("overloaded")
        assert found.model == "extractive"
        other = stream("other")
        assert next(other).text == "Once ", "one caller held all places"
        for begun in (*written, other):
            begun.close()  # type: ignore[attr-defined]
        assert places.used == 0
        again = stream("slow")
        assert next(again).text == "Once "
        again.close()  # type: ignore[attr-defined]
        generator.close()


class Counting:
    """The real encoder, and how often it was asked."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.asked = 0

    def within(self, deadline: Deadline) -> Self:
        return self

    def encode_query(self, text: str) -> Vectors:
        self.asked += 1
        return self._encoder.encode_query(text)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self._encoder.encode_passages(texts)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return self._encoder.token_offsets(text)


def test_what_was_weighed_before_is_not_weighed_again(minilm: Encoder) -> None:
    counting = Counting(minilm)
    generator = Generator(load_settings(), counting, MINILM)
    weighed = generator.weigh(QUESTION, HITS, 5)
    assert counting.asked == 1
    found = generator.answer(QUESTION, HITS, timeout_s=5, weighed=replace(weighed, seconds=100.0))
    assert counting.asked == 1
    assert found.gen_ms > 100_000  # the time that it took is part of the answer's, wherever it was spent
    again = generator.answer(QUESTION, HITS, timeout_s=5)
    assert counting.asked == 2
    assert (found.text, found.citations) == (again.text, again.citations)


MANY = [hit(" ".join(f"The lamp of lighthouse {n} turns {n} times a minute." for n in range(40)), "many", "Lighthouse")]


@pytest.mark.parametrize(
    ("question", "abstained"), [(QUESTION, False), ("Who won the chess world championship in 1972?", True)]
)
def test_weighing_ends_with_its_time_and_the_answer_says_so(minilm: Encoder, question: str, abstained: bool) -> None:
    for timeout_s in (0.0, -5.0):  # nothing is left: the few that are likeliest are weighed all the same
        found = Generator(load_settings(), minilm, MINILM).answer(question, MANY, timeout_s=timeout_s)
        assert found.degraded == (("generation", "deadline: 6 of 12 sentences were weighed"),)
        assert found.abstained == abstained
    assert Generator(load_settings(), minilm, MINILM).answer(question, MANY, timeout_s=500).degraded == ()


def test_a_model_s_own_answer_needs_no_word_of_the_sentences_that_were_left_out(minilm: Encoder) -> None:
    with endpoint(says(*complete("Once a minute [1]."))) as served:
        generator = Generator(load_settings(llm_url=served.url, llm_model="small"), minilm, MINILM)
        weighed = generator.weigh(QUESTION, MANY, 0)
        found = generator.answer(QUESTION, MANY, timeout_s=5, weighed=weighed)
        generator.close()
    assert (found.model, found.degraded) == ("small", ())


@pytest.mark.parametrize("passages", [1, 50])
@pytest.mark.parametrize("text", ["The lamp turns. ", "lamp ", "lamp\n\n", "灯塔的灯每分钟转一次。"])
def test_what_is_weighed_does_not_grow_with_the_passages(minilm: Encoder, text: str, passages: int) -> None:
    """Passages that other clients wrote to the store may have a megabyte."""
    looked_at = []
    for length in (40_000, 400_000):
        hits = [hit(text * (length // len(text)), f"long-{n}") for n in range(passages)]
        looked_at.append([(marker, len(sentence)) for marker, sentence in islice(_candidates(hits), 2000)])
        assert len(weigh(QUESTION, hits, minilm, MINILM.answers).sentences) <= MAX_SENTENCES
    assert looked_at[0] == looked_at[1]
