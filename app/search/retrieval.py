"""Requests of a search to OpenSearch: the two legs, the native hybrid request, the passages of the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from app import telemetry
from app.degradation import Reason
from app.errors import DeadlineExceeded, StoreError, StoreUnavailable
from app.search.known_words import KnownWords
from app.search.plan import STOP
from app.search.stage_times import StageTimes
from app.search.stages import Passages, SearchCall
from app.search.trace import Trace, count_stage
from app.store import queries
from app.store.client import Cluster, TooManyClauses, search_together
from app.store.highlights import highlight_body
from app.store.responses import (
    Leg,
    RetrievedPassages,
    Total,
    read_leg,
    read_lexical,
    read_response,
    read_tokens,
    read_total,
    worst_outcome,
)

_PLAIN_S = 30.0
"""Seconds until a word is looked up again that no passage had with other accents. The look-up reads all passages with
the word, so that at every query it took a tenth of the leg's processor time at 128,350 passages."""
GRACE_S = 0.05
"""Seconds to wait beyond the deadline for a job that ends by itself."""
_MOST_STOP_WORDS = 32
"""Words of a query up to which they may all be stop words; of more, other words would be known from it."""


@dataclass(frozen=True, slots=True)
class Legs:
    """Both legs of a hybrid search, or the one that answered."""

    lexical: Leg | None
    dense: Leg | None


class Retrieval:
    """Sends the requests of a search. Thread-safe."""

    def __init__(self, cluster: Cluster, executor: Executor) -> None:
        self._cluster = cluster
        self._executor = executor
        self._words = KnownWords()
        self._folded = KnownWords()
        """Words that passages have with other accents."""
        self._plain = KnownWords(_PLAIN_S)
        """Words that no passage had with other accents a moment ago."""
        self.times = StageTimes()
        """Recent times of the stages."""

    def start_lexical(self, call: SearchCall, trace: Trace) -> Future[Leg]:
        """Start the text leg; it runs while the query is embedded."""
        return self._executor.submit(self.lexical, call, trace)

    def lexical(self, call: SearchCall, trace: Trace) -> Leg:
        """Return the text leg. Words found in no passage are matched again with typing errors, words that passages have
        with other accents in those, too, and a text in which no word counts as one of stop words. Raises StoreError.
        """
        with trace.timed("lexical_ms", telemetry.LEXICAL_SEARCH.observe):
            where = [*call.filters, *({"field": name} for name in call.query.fields)]
            checked = self._words.find_unknown(where, call.query.checked)
            foldable = () if queries.folds_all(call.query) else call.query.foldable
            unknown = self._folded.find_unknown(call.filters, foldable)
            folded = tuple(word for word in foldable if word not in unknown)
            unfolded = self._plain.find_unknown(call.filters, unknown)
            known = replace(call, query=replace(call.query, folded=folded))
            found = self._lexical(known, trace, checked, unfolded=unfolded)
            self._words.learn(where, [word for word in checked if word not in found.missing])
            if found.outcome.is_whole and not found.folds:
                self._plain.learn(call.filters, unfolded)
            if found.missing or found.folds or _may_be_stop_words(call, found):
                found = self._again(known, trace, found, foldable if found.folds else folded)
                self._folded.learn(call.filters, found.folded)
        if (call.query.stop_words or not call.query.terms) and not found.total.value:
            trace.degrade("lexical", Reason.NO_WORDS, "it has stop words or punctuation alone, and no passage has them")
        return found

    def dense(self, call: SearchCall, trace: Trace, vector: Sequence[float]) -> Leg:
        """Return the vector leg. Raises StoreError."""
        with trace.timed("vector_ms", telemetry.VECTOR_SEARCH.observe), record_time(self.times, "vector"):
            # all that it finds are candidates, at most `depth` of each shard
            body = queries.leg_body(
                queries.vector_leg(vector, call.depth, call.filters),
                size=call.depth + queries.TIES,
                timeout_ms=_left_ms(call, "vector"),
                exact_total=True,
            )
            return read_leg(self._send(call, trace, "vector", body), call.depth)

    def both(self, call: SearchCall, trace: Trace, lexical_job: Future[Leg], vector: Sequence[float]) -> Legs:
        """Return both legs; if one fails, that is recorded, and the other answers alone.

        Raises:
            StoreError, DeadlineExceeded: error of the lexical leg, if both failed.
        """
        dense, dense_error = _attempt(lambda: self.dense(call, trace, vector))
        lexical, lexical_error = _attempt(lambda: wait_for(call, lexical_job))
        if lexical is None and dense is None:
            raise lexical_error or dense_error or StoreError("both legs failed")
        for stage, error in (("lexical", lexical_error), ("vector", dense_error)):
            if error is not None:
                trace.degrade(stage, Reason.of(error.kind), "the other leg answered alone")
        return Legs(lexical, dense)

    def native(
        self, call: SearchCall, trace: Trace, vector: Sequence[float], pipeline: str | queries.Body
    ) -> RetrievedPassages:
        """Send one `hybrid` request through a search pipeline, by name or in the body. Raises StoreError."""
        explain, boosts = call.request.explain, call.tuning.boosts
        query = queries.hybrid_query(call.query, boosts, vector, call.depth, call.filters, named=explain)
        # the candidates are requested from the first one and cut later: past its last hit the native `from` is an error
        exact = call.request.exact_total
        body = queries.search_body(query, size=call.reach, timeout_ms=_left_ms(call, "hybrid"), exact_total=exact)
        params: dict[str, Any] = {}
        if isinstance(pipeline, str):
            params["search_pipeline"] = pipeline
        else:
            body["search_pipeline"] = pipeline
        if explain:
            body["explain"] = True
        return read_response(self._send(call, trace, "hybrid", body, params))

    def read(self, call: SearchCall, trace: Trace, passages: Passages, ids: Sequence[str]) -> Passages:
        """Return `passages` with those of `ids`, reading only missing ones. Raises StoreError."""
        missing = [key for key in ids if key not in passages.hits]
        return self.fetch(call, trace, passages, missing)[1] if missing else passages

    def read_tokens(self, call: SearchCall, trace: Trace, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the packed token vectors of `ids`, of those that have them. Raises StoreError, DeadlineExceeded."""
        body = queries.tokens_body(ids, call.filters, timeout_ms=_left_ms(call, "fetch"))
        with trace.timed("fetch_ms"):
            return read_tokens(self._send(call, trace, "fetch", body))

    def fetch(
        self,
        call: SearchCall,
        trace: Trace,
        passages: Passages,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        highlight: Sequence[str] | None = None,
    ) -> tuple[RetrievedPassages, Passages]:
        """Return the passages of `ids`, in no order, and `passages` with them; passages deleted meanwhile are missing.

        Args:
            passages: the passages read so far.
            vectors: also read these.
            highlight: mark the query's words, with these corrected ones; None: mark nothing.

        Raises:
            StoreError, DeadlineExceeded.
        """
        # the shown fields are analysed like the main one
        marked = replace(call.query, fields=())
        marks = None if highlight is None else highlight_body(queries.lexical_match(marked, [], highlight))
        timeout_ms = _left_ms(call, "fetch")
        body = queries.fetch_body(ids, call.filters, timeout_ms=timeout_ms, vectors=vectors, highlight=marks)
        with trace.timed("fetch_ms"), record_time(self.times, "fetch"):
            found = read_response(self._send(call, trace, "fetch", body))
        # passages that a shard did not return may exist
        vanished = set(ids) - {hit.id for hit in found.hits} if found.outcome.is_whole else ()
        return found, passages.joined(found.hits, vanished)

    def _again(self, call: SearchCall, trace: Trace, strict: Leg, folded: tuple[str, ...]) -> Leg:
        """Return the text leg with similarly spelled words for the missing ones, with the `folded` words in all
        accents, and with stop words if it found nothing; `strict` if that finds no more, or on failure.
        """
        stop_words = call.query.stop_words or _may_be_stop_words(call, strict)
        again = replace(call, query=replace(call.query, folded=folded, stop_words=stop_words))
        try:
            found = self._lexical(again, trace, corrected=strict.missing)
        except (StoreError, DeadlineExceeded) as error:
            trace.degrade("correction", Reason.of(error.kind), "typing errors and other accents were not looked for")
            return strict
        corrected = tuple(word for word in strict.missing if word not in found.missing)
        return replace(found, corrected=corrected) if corrected or found.folded or found.total.value else strict

    def total(self, call: SearchCall, trace: Trace, lexical: Leg | None, dense: Leg | None) -> Total:
        """Return the number of passages that match either leg. If it is not known and the request wants it, they are
        counted; else, or on failure, it is a lower bound.
        """
        found = _known_total(lexical, dense)
        if found.relation == "eq" or lexical is None or not call.request.exact_total:
            return found
        query = replace(call.query, folded=lexical.folded, stop_words=lexical.stop_words)
        matched = queries.lexical_match(query, call.filters, lexical.corrected)
        ids = [item.id for item in dense.candidates] if dense is not None else []
        try:
            return read_total(self._send(call, trace, "lexical", queries.count_body(matched, ids, call.filters)))
        except (StoreError, DeadlineExceeded) as error:
            trace.degrade("lexical", Reason.of(error.kind), "the total is a lower bound")
            return found

    def _lexical(
        self,
        call: SearchCall,
        trace: Trace,
        checked: Sequence[str] = (),
        corrected: Sequence[str] = (),
        unfolded: Sequence[str] = (),
    ) -> Leg:
        """Return the text leg; of the `checked` words, or else of the `corrected` ones, those missing are named."""
        searches = queries.lexical_searches(
            call.query,
            call.tuning.boosts,
            call.filters,
            depth=call.depth,
            timeout_ms=_left_ms(call, "lexical"),
            checked=checked,
            corrected=corrected,
            unfolded=unfolded,
        )
        answers = self._send_all(call, trace, "lexical", searches)
        found = read_lexical(answers, call.query, checked or corrected, call.depth)
        return scale_leg(found, call.lexical_factor)

    def _send(
        self,
        call: SearchCall,
        trace: Trace,
        stage: str,
        body: queries.Body,
        params: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        return self._send_all(call, trace, stage, [body], params)[0]

    def _send_all(
        self,
        call: SearchCall,
        trace: Trace,
        stage: str,
        bodies: Sequence[queries.Body],
        params: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the answers to searches sent in one request. Raises StoreError, DeadlineExceeded."""
        deadline = call.deadline_of(stage)
        left = deadline.remaining_s(stage)
        if call.same_copies is not None:
            params = {**(params or {}), "preference": call.same_copies}
        with count_stage(stage):
            try:
                answers = search_together(self._cluster, bodies, params=params, timeout_s=left)
            except StoreUnavailable:
                deadline.remaining_s(stage)  # an exhausted budget is the caller's timeout, not an outage
                raise
            outcome = worst_outcome(answers)
        trace.took(outcome.took_ms, after_others=stage == "fetch")
        if outcome.failed_shards:
            trace.degrade(stage, Reason.PARTIAL, f"{outcome.failed_shards} of {outcome.shards} shards failed")
        if outcome.timed_out:
            trace.degrade(stage, Reason.TIMEOUT, "OpenSearch returned what it had found by then")
        return answers


def _may_be_stop_words(call: SearchCall, leg: Leg) -> bool:
    """Return whether the query may have words that the analyzer leaves out alone: a whole leg matched no passage, and
    no word is missing or spelled otherwise.
    """
    if call.query.stop_words or leg.missing or leg.folds:
        return False
    return leg.outcome.is_whole and not leg.total.value and 0 < call.query.terms <= _MOST_STOP_WORDS


def scale_leg(leg: Leg, factor: float) -> Leg:
    """Return a leg with its scores multiplied by `factor`."""
    if factor == 1.0:
        return leg
    return replace(leg, candidates=tuple(item._replace(score=item.score * factor) for item in leg.candidates))


def _attempt(job: Callable[[], Leg]) -> tuple[Leg | None, StoreError | DeadlineExceeded | None]:
    try:
        return job(), None
    except TooManyClauses:
        raise  # no failure: the search is done again with fewer words
    except (StoreError, DeadlineExceeded) as error:
        return None, error


def wait_for(call: SearchCall, job: Future[Leg]) -> Leg:
    """Wait for the lexical leg. Raises StoreError, DeadlineExceeded."""
    try:
        # its own requests end in time; this limits the wait for a thread to send them
        return job.result(call.deadline_of("lexical").remaining_s("lexical") + GRACE_S)
    except FutureTimeout as error:
        job.cancel()
        raise DeadlineExceeded(f"timeout_ms={call.deadline.budget_ms} was spent in the lexical leg") from error


def _known_total(lexical: Leg | None, dense: Leg | None) -> Total:
    """Return what the legs tell of the number of passages that match either, each counted once."""
    if lexical is None or dense is None:
        only = lexical or dense
        return only.total if only is not None else Total(0, "gte")
    either = len({item.id for leg in (lexical, dense) for item in leg.candidates})
    # where the lexical leg matches more than its candidates, those of the dense leg may be among them
    known = lexical.total.relation == dense.total.relation == "eq" and lexical.total.value <= len(lexical.candidates)
    return Total(either) if known else Total(max(lexical.total.value, either), "gte")


def _left_ms(call: SearchCall, stage: str) -> int:
    """Return OpenSearch's time: slightly less than our own wait, so that its partial result still arrives."""
    return max(1, int(call.deadline_of(stage).remaining_s(stage) * STOP * 1000))


@contextmanager
def record_time(times: StageTimes, stage: str) -> Iterator[None]:
    """Record the time of the block, if it succeeds."""
    started = time.perf_counter()
    yield
    times.note(stage, time.perf_counter() - started)
