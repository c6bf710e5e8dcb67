"""Micro-batching scheduler: joins the pairs of concurrent callers into batches, with a bounded queue.

* Continuous: each batch is composed from all waiting work, so that a new call joins at once.
* Fair: a call is overtaken only by later, smaller calls, and by no more work than its own; a new call is never put
  before a call that it would make late. (A call's turn is the work served at its arrival plus its own work: the
  finishing tags of self-clocked fair queueing, S. J. Golestani, INFOCOM 1994, each call being a flow of its own.)
* Early: a call that can't be answered in time is rejected on arrival, before anything is computed. A call that becomes
  late anyway is dropped before it is computed.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from reranker import telemetry
from reranker.cross_encoder import CrossEncoder, Logits, ScoringResult
from reranker.errors import DeadlinePassed, InferenceError, Overloaded, RerankerError, TextTooLong
from reranker.runtime.batching import by_length, fits
from reranker.runtime.tokenizing import Pair, TokenizedPairs

log = logging.getLogger(__name__)

MAX_PAIRS = 4096
GATHER_MS = 2.0
PADDING_SHARE = 0.25
"""Share of a batch's token budget that may be padding in favour of fuller batches."""
CAUTION = 2.0
"""Mean deviations added to the mean time per token, as in V. Jacobson's round-trip estimator (SIGCOMM 1988)."""
_GAIN = 0.2
"""Weight of the newest value in the moving averages."""


@dataclass(eq=False, slots=True)
class _Call:
    """One caller's pairs. All fields but `done` are accessed under the scheduler's lock."""

    count: int
    deadline: float
    tokens: float
    """Tokens still to be computed; an estimate until `pairs` is set."""
    turn: float
    number: int
    pairs: list[Pair] = field(default_factory=list)
    todo: list[int] = field(default_factory=list)
    """Indices of the pairs that are in no batch yet, longest first."""
    left: int = 0
    """Number of pairs without a logit."""
    logits: Logits = field(default_factory=lambda: np.empty(0, np.float32))
    queued_at: float = 0.0
    finished_at: float = 0.0
    compute_s: float = 0.0
    error: RerankerError | None = None
    done: threading.Event = field(default_factory=threading.Event)


class MicroBatcher:
    """Shares one model between threads. Create it after a fork, never before; call `close` at the end."""

    def __init__(self, model: CrossEncoder, *, gather_ms: float = GATHER_MS, max_pairs: int = MAX_PAIRS) -> None:
        """Start the thread that runs the model.

        Args:
            model: a `CrossEncoder`, for exclusive use.
            gather_ms: milliseconds that a batch that is not full waits for other callers.
            max_pairs: maximum number of waiting pairs.
        """
        self._model = model
        self._gather_s = gather_ms / 1000
        self._max_pairs = max_pairs
        self._calls: list[_Call] = []
        self._running_tokens = 0
        self._served = 0.0
        self._token_s = 1 / model.tokens_per_second
        self._deviation_s = self._token_s / 4
        self._pair_tokens = model.max_tokens / 2
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="reranker", daemon=True)
        self._thread.start()

    def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        timeout_s: float,
        max_document_tokens: int | None = None,
        truncate: bool = True,
    ) -> ScoringResult:
        """Score `documents` against `query`, in batches shared with other callers.

        Args:
            timeout_s: seconds that the caller waits, including tokenising.
            truncate: False: raise if a text had to be cut.

        Raises:
            Overloaded: it can't be done in time, or the queue is full; nothing was computed.
            DeadlinePassed: the time ran out.
            InferenceError: the model failed on these pairs, or the scheduler is closed.
            TextTooLong: a text had to be cut, and `truncate` is False.
        """
        try:
            scored = self._score(query, documents, timeout_s, max_document_tokens, truncate)
        except RerankerError as error:
            telemetry.CALLS.labels(_OUTCOMES.get(type(error), "failed")).inc()
            raise
        telemetry.CALLS.labels("scored").inc()
        telemetry.TRUNCATED.inc(scored.truncated)
        for histogram, milliseconds in (
            (telemetry.QUEUE, scored.queue_ms),
            (telemetry.TOKENIZE, scored.tokenize_ms),
            (telemetry.COMPUTE, scored.compute_ms),
        ):
            histogram.observe(milliseconds / 1000)
        return scored

    def close(self, *, timeout_s: float = 10.0) -> None:
        """Reject new calls, finish waiting ones for up to `timeout_s` seconds, stop the thread; the rest fail."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            self._fail_all("the reranker was closed before these pairs had their turn")
            self._changed.notify_all()
        self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Return whether the scheduler accepts calls."""
        return self._thread.is_alive() and not self._closing

    @property
    def pending_pairs(self) -> int:
        """Number of admitted pairs that are in no batch yet."""
        with self._changed:
            return self._pending()

    @property
    def tokens_per_second(self) -> float:
        """Recent throughput, as the scheduler's estimates use it."""
        return 1 / self._token_s

    @property
    def _pace(self) -> float:
        """Return a cautious estimate of the seconds per token."""
        return self._token_s + CAUTION * self._deviation_s

    def _score(
        self, query: str, documents: Sequence[str], timeout_s: float, max_document_tokens: int | None, truncate: bool
    ) -> ScoringResult:
        deadline = time.monotonic() + timeout_s
        call = self._admit(len(documents), deadline, timeout_s)
        try:
            found = self._model.tokenize(query, documents, max_document_tokens=max_document_tokens)
            if not truncate and (found.truncated or found.query_truncated):
                what = "the query" if found.query_truncated else f"{found.truncated} of {len(documents)} documents"
                raise TextTooLong(
                    f"{what} would have to be cut to fit {self._model.max_tokens} tokens a pair: shorten the text, or "
                    "allow "
                    f"truncation"
                )
            if found.pairs:
                self._enqueue(call, found)
                call.done.wait(max(0.0, deadline - time.monotonic()))
        finally:
            # on every exit path, nothing of this call may stay in the queue
            with self._changed:
                self._remove(call)
                self._changed.notify_all()
        if call.error is not None:
            raise call.error
        if call.left:
            raise DeadlinePassed(
                f"{call.count - call.left} of {call.count} pairs were scored within {timeout_s * 1000:.0f} ms: "
                f"allow more time, or send fewer documents"
            )
        waited = call.finished_at - call.queued_at - call.compute_s
        return ScoringResult(
            call.logits,
            found.truncated,
            found.milliseconds,
            call.compute_s * 1000,
            max(0.0, waited * 1000),
            found.tokens,
            found.query_truncated,
        )

    def _admit(self, count: int, deadline: float, timeout_s: float) -> _Call:
        with self._changed:
            if not self.alive:
                raise InferenceError("the reranker's scheduler has stopped: restart the reranker")
            pending = self._pending()
            if self._calls and pending + count > self._max_pairs:
                seconds = (pending + count - self._max_pairs) * self._pair_tokens * self._token_s
                raise Overloaded(
                    f"{pending} pairs are waiting, {count} more would exceed the limit of {self._max_pairs}: retry "
                    "later",
                    retry_after_s=max(0.1, seconds),
                )
            tokens = count * self._pair_tokens
            call = _Call(count, deadline, tokens, self._served + tokens, next(self._numbers), left=count)
            ahead = self._assign_turn(call)
            seconds = (ahead + tokens) * self._pace
            # with an empty queue it is admitted whatever the estimate says: that corrects a wrong estimate
            if ahead and seconds > deadline - time.monotonic():
                raise Overloaded(
                    f"{count} pairs would take about {seconds * 1000:.0f} ms, and the call's timeout is "
                    f"{timeout_s * 1000:.0f} ms: retry later, allow more time, or send fewer documents",
                    retry_after_s=max(0.1, seconds - timeout_s),
                )
            self._calls.append(call)
            self._calls.sort(key=lambda other: (other.turn, other.number))
            telemetry.PENDING.set(pending + count)
            return call

    def _assign_turn(self, call: _Call) -> float:
        """Set the call's turn behind all calls that it would make late; return the number of tokens ahead of it."""
        now, ahead, passed = time.monotonic(), float(self._running_tokens), 0.0
        for other in self._calls:
            passed += other.tokens
            late = now + (self._running_tokens + passed + call.tokens) * self._pace > other.deadline
            if other.turn <= call.turn or late:
                call.turn = max(call.turn, other.turn)
                ahead = self._running_tokens + passed
        return ahead

    def _enqueue(self, call: _Call, found: TokenizedPairs) -> None:
        lengths = [len(pair) for pair in found.pairs]
        with self._changed:
            self._pair_tokens += _GAIN * (found.tokens / len(lengths) - self._pair_tokens)
            if call not in self._calls:
                return  # closed meanwhile
            call.pairs, call.todo = found.pairs, by_length(lengths)
            call.tokens = found.tokens
            call.logits = np.empty(len(lengths), np.float32)
            call.queued_at = time.monotonic()
            self._changed.notify_all()

    def _pending(self) -> int:
        return sum(len(call.todo) if call.pairs else call.count for call in self._calls)

    def _remove(self, call: _Call) -> None:
        if call in self._calls:
            self._calls.remove(call)
            telemetry.PAIRS.labels("given_up").inc(call.left)
            telemetry.PENDING.set(self._pending())

    # the thread

    def _work(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                if batch:
                    self._compute(batch)
        finally:
            with self._changed:
                self._closing = True
                self._fail_all("the reranker's thread has ended: see the log")

    def _next_batch(self) -> list[tuple[_Call, int]] | None:
        """Wait for work and take a batch out of the queue; None after `close`."""
        with self._changed:
            while not (ready := [call for call in self._calls if call.todo]):
                if self._closing and not self._calls:
                    return None
                self._changed.wait()
            first = min(call.queued_at for call in ready)
            while (wait := first + self._gather_s - time.monotonic()) > 0 and not self._closing:
                if sum(call.tokens for call in self._calls if call.todo) >= self._model.batch_tokens:
                    break
                self._changed.wait(wait)
            now = time.monotonic()
            for call in [call for call in self._calls if call.deadline <= now]:
                self._remove(call)
                call.done.set()  # its caller finds it unfinished
            return self._take()

    def _take(self) -> list[tuple[_Call, int]]:
        batch: list[tuple[_Call, int]] = []
        budget = self._model.batch_tokens
        longest = tokens = 0
        for call in self._calls:
            taken = []
            for index in call.todo:
                length = len(call.pairs[index])
                widest = max(longest, length)
                padded = (len(batch) + 1) * widest
                if batch and not fits(len(batch) + 1, longest, budget):
                    break
                if batch and (padded > budget or padded - tokens - length > PADDING_SHARE * budget):
                    continue
                longest, tokens = widest, tokens + length
                batch.append((call, index))
                taken.append(index)
                call.tokens -= length
            if taken:
                gone = set(taken)
                call.todo = [index for index in call.todo if index not in gone]
        self._running_tokens = tokens
        if batch:
            telemetry.BATCH_PAIRS.observe(len(batch))
            telemetry.BATCH_CALLERS.observe(len({call.number for call, _ in batch}))
            telemetry.BATCH_TOKENS.labels("pairs").inc(tokens)
            telemetry.BATCH_TOKENS.labels("padding").inc(len(batch) * longest - tokens)
            telemetry.PENDING.set(self._pending())
        return batch

    def _compute(self, batch: list[tuple[_Call, int]]) -> None:
        began = time.monotonic()
        try:
            logits = self._model.infer([call.pairs[index] for call, index in batch])
        except InferenceError as error:
            self._compute_separately(batch, error)
            return
        seconds = time.monotonic() - began
        tokens = sum(len(call.pairs[index]) for call, index in batch)
        with self._changed:
            # a small batch says little about the time of a full one
            gain = _GAIN * min(1.0, tokens / self._model.batch_tokens)
            off = seconds / tokens - self._token_s
            self._token_s += gain * off
            self._deviation_s += gain * (abs(off) - self._deviation_s)
            self._served += tokens
            self._running_tokens = 0
            for call in {call.number: call for call, _ in batch}.values():
                call.compute_s += seconds
            for (call, index), logit in zip(batch, logits, strict=True):
                call.logits[index] = logit
                call.left -= 1
                if not call.left:
                    call.finished_at = time.monotonic()
                    call.done.set()
        telemetry.PAIRS.labels("scored").inc(len(batch))

    def _compute_separately(self, batch: list[tuple[_Call, int]], error: InferenceError) -> None:
        """Compute each caller's pairs separately after a failure, so that the error reaches only the calls that caused
        it.
        """
        shares: dict[int, list[tuple[_Call, int]]] = {}
        for call, index in batch:
            shares.setdefault(call.number, []).append((call, index))
        if len(shares) > 1:
            for share in shares.values():
                self._compute(share)
            return
        log.warning("the reranker failed on %d pairs: %s", len(batch), error.detail)
        with self._changed:
            self._running_tokens = 0
            self._fail(batch[0][0], error)

    def _fail_all(self, detail: str) -> None:
        for call in list(self._calls):
            self._fail(call, InferenceError(detail))

    def _fail(self, call: _Call, error: RerankerError) -> None:
        call.error = error
        self._remove(call)
        call.done.set()


_OUTCOMES: dict[type[RerankerError], str] = {
    Overloaded: "overloaded",
    DeadlinePassed: "deadline",
    TextTooLong: "too_long",
}
