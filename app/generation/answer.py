"""Answers: from a language model where one is connected, else quotations. What was left out is part of the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from app import telemetry
from app.config import Settings
from app.errors import EncoderError, GenerationError
from app.generation.citations import Citation, MarkFilter, best_quote, cite
from app.generation.context import Fetch, build_context
from app.generation.evidence import Evidence, TextEncoder, is_relevant, weigh
from app.generation.llm import LanguageModel, Usage
from app.generation.prompt import UNKNOWN, build_prompt
from app.passage import Hit

EXTRACTIVE = "extractive"
_SECOND_SHARE = 0.85
"""A further sentence is quoted when it scores at least so much of the best one."""
_MOST_SENTENCES = 3
_WEIGH_SHARE, _WEIGH_S = 0.25, 0.5
"""Of its time, and at most, an answer has for weighing sentences: usually 30 ms, but many do it at once under load."""
_WAIT_SHARE = 0.1
"""Of its time an answer waits for others to be written, before it is quoted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`degraded` holds (stage, reason) pairs; `dropped` the marks that named no passage."""

    text: str
    citations: tuple[Citation, ...]
    abstained: bool
    model: str
    usage: dict[str, int] | None
    degraded: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...]
    gen_ms: float


@dataclass(frozen=True, slots=True)
class Weighed:
    """How well the passages answer; None and `problem` where that could not be found out. `seconds`: what it took."""

    evidence: Evidence | None
    problem: tuple[str, str] | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a streamed answer; the field that `kind` names is set."""

    kind: Literal["token", "citation", "done"]
    text: str = ""
    citation: Citation | None = None
    answer: Answer | None = None


class Generator:
    """Makes answers. Thread-safe."""

    def __init__(self, settings: Settings, encoder: TextEncoder) -> None:
        self._settings = settings
        self._encoder = encoder
        self._model = LanguageModel(settings) if settings.llm_url else None
        # each one holds a thread of the server for as long as the model talks
        self._writing = threading.BoundedSemaphore(max(2, settings.threads // 2))

    @property
    def model(self) -> str:
        """What makes the answers: the connected model's name, or ``extractive``."""
        return self._model.name if self._model else EXTRACTIVE

    def weigh(self, question: str, hits: Sequence[Hit], timeout_s: float) -> Weighed:
        """Find out how well `hits` answer: the part of an answer that takes the processor, for whoever shares it out.

        Never fails: without the embedding model the answer goes on, and says so. `timeout_s`: left for the answer.
        """
        started = time.perf_counter()
        evidence, problem = None, None
        until = time.monotonic() + min(_WEIGH_S, timeout_s * _WEIGH_SHARE)
        try:
            evidence = weigh(question, hits, self._encoder, until)
        except EncoderError:
            problem = ("generation", "encoder-failed: relevance could not be checked")
        return Weighed(evidence, problem, time.perf_counter() - started)

    def answer(
        self,
        question: str,
        hits: Sequence[Hit],
        *,
        timeout_s: float,
        nearby: Fetch | None = None,
        generate: bool = True,
        weighed: Weighed | None = None,
    ) -> Answer:
        """The whole answer. Never fails for the language model's sake: then it is quoted, and `degraded` says why.

        Args:
            question: as asked.
            hits: the passages to answer from, best first.
            timeout_s: seconds left for it.
            nearby: reads neighbours of the passages for the language model's context; None: it gets `hits` alone.
            generate: False: the flag `generation` is off, so that the answer is quoted although a model is connected.
            weighed: what `weigh` found before `timeout_s` began; None: it is found out now.
        """
        steps = self.stream(question, hits, timeout_s=timeout_s, nearby=nearby, generate=generate, weighed=weighed)
        for event in steps:
            if event.answer is not None:
                return event.answer
        raise AssertionError("a stream ends with its answer")

    def stream(
        self,
        question: str,
        hits: Sequence[Hit],
        *,
        timeout_s: float,
        nearby: Fetch | None = None,
        generate: bool = True,
        weighed: Weighed | None = None,
    ) -> Iterator[Event]:
        """The answer piece by piece, last a ``done`` with the whole. Closing it ends the upstream request."""
        started = time.perf_counter()
        if weighed is None:
            weighed = self.weigh(question, hits, timeout_s)
        else:
            started -= weighed.seconds
            timeout_s += weighed.seconds
        evidence = weighed.evidence
        degraded = [weighed.problem] if weighed.problem is not None else []
        if not hits or (evidence is not None and not is_relevant(evidence)):
            degraded += _left_out(evidence)
            yield from self._finish(UNKNOWN, hits, EXTRACTIVE, started, degraded, abstained=True)
            return
        if self._model is not None and not generate:
            degraded.append(("generation", "switched-off: the flag generation is off, the answer is quoted"))
        if self._model is None or not generate:
            yield from self._quote(evidence, hits, started, degraded)
            return
        if not self._writing.acquire(timeout=max(0.0, timeout_s) * _WAIT_SHARE):
            degraded.append(("generation", "overloaded: too many answers are being written, this one is quoted"))
            yield from self._quote(evidence, hits, started, degraded)
            return
        try:
            yield from self._ask(self._model, question, hits, evidence, nearby, started, timeout_s, degraded)
        finally:
            self._writing.release()

    def close(self) -> None:
        if self._model is not None:
            self._model.close()

    def _ask(
        self,
        model: LanguageModel,
        question: str,
        hits: Sequence[Hit],
        evidence: Evidence | None,
        nearby: Fetch | None,
        started: float,
        timeout_s: float,
        degraded: list[tuple[str, str]],
    ) -> Iterator[Event]:
        context = build_context(
            hits,
            nearby,
            max_tokens=self._settings.llm_context_tokens,
            count_tokens=lambda text: len(self._encoder.token_offsets(text)),
        )
        degraded += context.degraded
        if len(context.results) < len(hits):
            degraded.append(
                ("generation", f"context-cut: {len(context.results)} of {len(hits)} passages fitted the prompt")
            )
        marks, usage, shown = MarkFilter(len(context.results)), Usage(), []
        outcome = "error"
        try:
            pieces = model.stream(
                build_prompt(question, context),
                timeout_s=max(0.1, timeout_s - (time.perf_counter() - started)),
                usage=usage,
            )
            for piece in pieces:
                if text := marks.feed(piece):
                    shown.append(text)
                    yield Event("token", text=text)
            outcome = "ok"
        except GenerationError as error:
            if not shown:
                degraded.append(("generation", f"{error.reason}: the answer is quoted from the passages"))
                yield from self._quote(evidence, hits, started, degraded)
                return
            degraded.append(("generation", f"{error.reason}: the answer breaks off"))
        finally:
            telemetry.STAGE_REQUESTS.labels("generation", outcome).inc()
            telemetry.GENERATION.observe(time.perf_counter() - started)
        if rest := marks.finish():
            shown.append(rest)
            yield Event("token", text=rest)
        text = "".join(shown).strip()
        if not text:
            degraded.append(("generation", "empty: the model said nothing, the answer is quoted from the passages"))
            yield from self._quote(evidence, hits, started, degraded)
            return
        abstained = UNKNOWN.rstrip(".").lower() in text.lower()
        if marks.dropped:
            degraded.append(("citations", f"dropped: {len(marks.dropped)} marks named no passage"))
        citations = () if abstained else tuple(cite(text, context.passages))
        if not citations and not abstained:
            degraded.append(("citations", "none: the model cited no passage, check the answer against the results"))
        for citation in citations:
            yield Event("citation", citation=citation)
        yield Event(
            "done",
            answer=Answer(
                text=text,
                citations=citations,
                abstained=abstained,
                model=model.name,
                usage=usage.as_dict(),
                degraded=tuple(degraded),
                dropped=tuple(marks.dropped),
                gen_ms=_ms(started),
            ),
        )

    def _quote(
        self, evidence: Evidence | None, hits: Sequence[Hit], started: float, degraded: list[tuple[str, str]]
    ) -> Iterator[Event]:
        degraded += _left_out(evidence)
        if evidence is None:  # no encoder: the best passage's beginning is all that can be said
            chosen = [(1, best_quote("", hits[0].text))]
        else:
            best = evidence.sentences[0].score
            chosen, seen = [], set()
            for sentence in evidence.sentences[: 3 * _MOST_SENTENCES]:
                text = " ".join(sentence.text.split())
                if sentence.score >= _SECOND_SHARE * best and text.lower() not in seen:
                    seen.add(text.lower())
                    chosen.append((sentence.marker, sentence.text))
            chosen = chosen[:_MOST_SENTENCES]
        text = " ".join(f"{' '.join(quote.split())} [{marker}]" for marker, quote in chosen)
        quotes: dict[int, str] = {}
        for marker, quote in chosen:
            quotes.setdefault(marker, quote)
        citations = [Citation.of(marker, hits[marker - 1], quote) for marker, quote in quotes.items()]
        yield from self._finish(text, hits, EXTRACTIVE, started, degraded, citations=citations)

    def _finish(
        self,
        text: str,
        hits: Sequence[Hit],
        model: str,
        started: float,
        degraded: list[tuple[str, str]],
        *,
        abstained: bool = False,
        citations: Sequence[Citation] = (),
    ) -> Iterator[Event]:
        yield Event("token", text=text)
        for citation in citations:
            yield Event("citation", citation=citation)
        done = Answer(text, tuple(citations), abstained, model, None, tuple(degraded), (), _ms(started))
        yield Event("done", answer=done)


def _left_out(evidence: Evidence | None) -> list[tuple[str, str]]:
    """What to say where the answer rests on fewer sentences than it would with more time."""
    if evidence is None or not evidence.left_out:
        return []
    weighed = len(evidence.sentences)
    return [("generation", f"deadline: {weighed} of {weighed + evidence.left_out} sentences were weighed")]


def _ms(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
