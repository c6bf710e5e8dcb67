"""Answers: written by a language model if one is connected, else quoted. An answer reports what was left out."""

from __future__ import annotations

import time
from collections.abc import Generator as Steps
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from app import telemetry
from app.calibration import Calibration
from app.config import Settings
from app.deadline import Deadline
from app.degradation import Reason
from app.embedding.text_encoder import TextEncoder
from app.errors import EncoderError, GenerationError, Overloaded
from app.generation.citations import Citation, MarkFilter, best_quote, cite
from app.generation.context import Fetch, build_context
from app.generation.evidence import UNCALIBRATED, Evidence, is_relevant, weigh
from app.generation.llm import LanguageModel, Usage
from app.generation.prompt import UNKNOWN, build_prompt
from app.generation.rewriting import StandaloneQuestion, TakePlace, complete_question
from app.passage import Hit

EXTRACTIVE = "extractive"
_MOST_SENTENCES = 3
_REWRITE_SHARE, _REWRITE_S = 0.2, 3.0
"""Share of the answer's time, and maximum seconds, for completing a follow-up question."""
_WEIGH_SHARE, _WEIGH_S = 0.25, 0.5
"""Share of the answer's time, and maximum seconds, for weighing sentences: usually 30 ms, more under load."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. `degraded` has (stage, reason) pairs; `dropped` the marks that name no passage."""

    text: str
    citations: tuple[Citation, ...]
    abstained: bool
    model: str
    usage: dict[str, int] | None
    degraded: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...]
    gen_ms: float


@dataclass(frozen=True, slots=True)
class WeighingResult:
    """Relevance of the passages; None and `problem` if it could not be determined. `seconds` is the time taken."""

    evidence: Evidence | None
    problem: tuple[str, str] | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a streamed answer; only the field named by `kind` is set.

    ``waiting`` is none: the model is silent, and the consumer may look after its caller.
    """

    kind: Literal["token", "citation", "done", "waiting"]
    text: str = ""
    citation: Citation | None = None
    answer: Answer | None = None


class Generator:
    """Generates answers. Thread-safe."""

    def __init__(self, settings: Settings, encoder: TextEncoder, calibration: Calibration | None) -> None:
        """Create the generator.

        Args:
            calibration: the encoder's. With None every question is answered, and the answer says that its relevance
                was not judged.
        """
        self._settings = settings
        self._encoder = encoder
        self._calibrated = calibration is not None
        self._thresholds = calibration.answers if calibration is not None else UNCALIBRATED
        self._model = LanguageModel(settings.llm) if settings.llm.url else None

    @property
    def model(self) -> str:
        """Source of the answers: the connected model's name, or ``extractive``."""
        return self._model.name if self._model else EXTRACTIVE

    def weigh(self, question: str, hits: Sequence[Hit], timeout_s: float) -> WeighingResult:
        """Determine how well `hits` answer: the CPU-bound part of an answer, separate for scheduling.

        Never fails: if the embedding model does, the answer continues and reports it. `timeout_s` is the answer's
        remaining time.
        """
        started = time.perf_counter()
        evidence, problem = None, None
        until = time.monotonic() + min(_WEIGH_S, timeout_s * _WEIGH_SHARE)
        try:
            encoder = self._encoder.within(Deadline(until, int(timeout_s * 1000)))
            evidence = weigh(question, hits, encoder, self._thresholds, until)
        except EncoderError:
            problem = _problem(Reason.ENCODER_FAILED, "relevance could not be checked")
        return WeighingResult(evidence, problem, time.perf_counter() - started)

    def complete(
        self, question: str, earlier: Sequence[str], timeout_s: float, *, generate: bool, **how: Any
    ) -> StandaloneQuestion:
        """Return a question with what it refers to in earlier ones; `how` as for `complete_question`.

        The model has at most a fifth of `timeout_s`.
        """
        limit = min(_REWRITE_S, timeout_s * _REWRITE_SHARE)
        return complete_question(question, earlier, self._model if generate else None, limit, **how)

    def answer(self, question: str, hits: Sequence[Hit], **how: Any) -> Answer:
        """Return the whole answer; arguments as those of `stream`."""
        return whole_answer(self.stream(question, hits, **how))

    def stream(
        self,
        question: str,
        hits: Sequence[Hit],
        *,
        timeout_s: float,
        nearby: Fetch | None = None,
        generate: bool = True,
        weighed: WeighingResult | None = None,
        take_place: TakePlace = lambda: lambda: None,
    ) -> Steps[Event, None, None]:
        """Yield the answer piece by piece, last a ``done`` with all of it. Closing the iterator ends the upstream
        request. If the language model fails, the answer is quoted, and `degraded` has the reason.

        Args:
            hits: the passages to answer from, best first.
            nearby: reads neighbours of the passages for the language model's context; None: only `hits` are used.
            generate: False if the flag `generation` is off: the answer is quoted even with a model.
            weighed: result of `weigh`, computed before `timeout_s` began; None: it is computed now.
            take_place: called before the model is asked; if it raises Overloaded, the answer is quoted.
        """
        started = time.perf_counter()
        if weighed is None:
            weighed = self.weigh(question, hits, timeout_s)
        else:
            started -= weighed.seconds
            timeout_s += weighed.seconds
        evidence = weighed.evidence
        degraded = [weighed.problem] if weighed.problem is not None else []
        if hits and not self._calibrated:
            degraded.append(_problem(Reason.UNCALIBRATED, "whether the passages are about the question was not judged"))
        if not hits or (evidence is not None and not is_relevant(evidence, self._thresholds)):
            degraded += _left_out(evidence)
            yield from self._finish(UNKNOWN, started, degraded, abstained=True)
            return
        if self._model is None or not generate:
            if self._model is not None:
                degraded.append(_problem(Reason.SWITCHED_OFF, "the flag generation is off, the answer is quoted"))
            yield from self._quote(evidence, hits, started, degraded)
            return
        try:
            release = take_place()
        except Overloaded:
            degraded.append(_problem(Reason.OVERLOADED, "too many answers are being written, this one is quoted"))
            yield from self._quote(evidence, hits, started, degraded)
            return
        try:
            yield from self._ask(self._model, question, hits, evidence, nearby, started, timeout_s, degraded)
        finally:
            release()

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
            max_tokens=self._settings.llm.context_tokens,
            count_tokens=lambda text: len(self._encoder.token_offsets(text)),
        )
        degraded += context.degraded
        if len(context.results) < len(hits):
            fitted = f"{len(context.results)} of {len(hits)} passages fitted the prompt"
            degraded.append(_problem(Reason.CONTEXT_CUT, fitted))
        marks, usage, shown = MarkFilter(len(context.results)), Usage(), []
        outcome = "error"
        try:
            left = max(0.1, timeout_s - (time.perf_counter() - started))
            with closing(model.stream(build_prompt(question, context), timeout_s=left, usage=usage)) as pieces:
                for piece in pieces:
                    if piece is None:
                        yield Event("waiting")
                    elif text := marks.feed(piece):
                        shown.append(text)
                        yield Event("token", text=text)
            outcome = "ok"
        except GenerationError as error:
            if not shown:
                degraded.append(_problem(Reason.of(error.reason), "the answer is quoted from the passages"))
                yield from self._quote(evidence, hits, started, degraded)
                return
            degraded.append(_problem(Reason.of(error.reason), "the answer breaks off"))
        finally:
            telemetry.STAGE_REQUESTS.labels("generation", outcome).inc()
            telemetry.GENERATION.observe(time.perf_counter() - started)
        if rest := marks.finish():
            shown.append(rest)
            yield Event("token", text=rest)
        text = "".join(shown).strip()
        if not text:
            degraded.append(_problem(Reason.EMPTY, "the model said nothing, the answer is quoted from the passages"))
            yield from self._quote(evidence, hits, started, degraded)
            return
        abstained = UNKNOWN.rstrip(".").lower() in text.lower()
        if marks.dropped:
            degraded.append(_problem(Reason.DROPPED, f"{len(marks.dropped)} marks named no passage", "citations"))
        citations = () if abstained else tuple(cite(text, context.passages))
        if not citations and not abstained:
            told = "the model cited no passage, check the answer against the results"
            degraded.append(_problem(Reason.NONE, told, "citations"))
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
        if evidence is None:  # without the encoder, only the beginning of the best passage can be quoted
            chosen = [(1, best_quote("", hits[0].text, hits[0].text_language))]
        else:
            best = evidence.sentences[0].score
            chosen, seen = [], set()
            for sentence in evidence.sentences[: 3 * _MOST_SENTENCES]:
                text = " ".join(sentence.text.split())
                if sentence.score >= self._thresholds.second_share * best and text.lower() not in seen:
                    seen.add(text.lower())
                    chosen.append((sentence.marker, sentence.text))
            chosen = chosen[:_MOST_SENTENCES]
        text = " ".join(f"{' '.join(quote.split())} [{marker}]" for marker, quote in chosen)
        quotes: dict[int, str] = {}
        for marker, quote in chosen:
            quotes.setdefault(marker, quote)
        citations = [Citation.of(marker, hits[marker - 1], quote) for marker, quote in quotes.items()]
        yield from self._finish(text, started, degraded, citations=citations)

    def _finish(
        self,
        text: str,
        started: float,
        degraded: list[tuple[str, str]],
        *,
        abstained: bool = False,
        citations: Sequence[Citation] = (),
    ) -> Iterator[Event]:
        yield Event("token", text=text)
        for citation in citations:
            yield Event("citation", citation=citation)
        done = Answer(text, tuple(citations), abstained, EXTRACTIVE, None, tuple(degraded), (), _ms(started))
        yield Event("done", answer=done)


def whole_answer(steps: Iterator[Event]) -> Answer:
    """Return the answer at the end of a stream."""
    for event in steps:
        if event.answer is not None:
            return event.answer
    raise AssertionError("a stream ends with its answer")


def _problem(reason: Reason, detail: str, stage: str = "generation") -> tuple[str, str]:
    return stage, reason.with_detail(detail)


def _left_out(evidence: Evidence | None) -> list[tuple[str, str]]:
    """Return a degradation if the answer is based on fewer sentences for lack of time."""
    if evidence is None or not evidence.left_out:
        return []
    weighed = len(evidence.sentences)
    return [_problem(Reason.DEADLINE, f"{weighed} of {weighed + evidence.left_out} sentences were weighed")]


def _ms(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
