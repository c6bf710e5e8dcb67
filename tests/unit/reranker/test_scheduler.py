"""The scheduler by itself, around a model that counts and can be held."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from reranker.cross_encoder import CrossEncoder, Logits, ScoringResult
from reranker.errors import DeadlinePassed, InferenceError, Overloaded, TextTooLong
from reranker.runtime.tokenizing import Pair, TokenizedPairs
from reranker.scheduler import MicroBatcher

TOKENS = 10
"""Of each pair; the logit of a pair is its document as a number."""


class FakeModel:
    """Documents are numbers. Each batch waits until the test lets it go, if `gate` is closed."""

    max_tokens = 2 * TOKENS
    batch_tokens = 4 * TOKENS
    tokens_per_second = 1e6

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.batches: list[list[int]] = []
        self.broken: set[int] = set()
        self.seconds = 0.0

    def tokenize(
        self, query: str, documents: Sequence[str], *, max_document_tokens: int | None = None
    ) -> TokenizedPairs:
        pairs = [Pair(np.full(TOKENS, int(document)), np.zeros(TOKENS, np.int64)) for document in documents]
        return TokenizedPairs(pairs, 1 if query == "long" else 0, False, 0.5)

    def infer(self, pairs: Sequence[Pair]) -> Logits:
        numbers = [int(pair.ids[0]) for pair in pairs]
        self.batches.append(numbers)
        self.began.set()
        assert self.gate.wait(10)
        time.sleep(self.seconds)
        if self.broken & set(numbers):
            raise InferenceError("broken")
        return np.array(numbers, np.float32)


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def batcher(model: FakeModel) -> Iterator[MicroBatcher]:
    made = MicroBatcher(model, gather_ms=20, max_pairs=40)
    yield made
    model.gate.set()
    made.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


Ask = Callable[..., "Future[ScoringResult]"]


@pytest.fixture
def ask(batcher: MicroBatcher, pool: ThreadPoolExecutor) -> Ask:
    def call(numbers: Sequence[int], timeout_s: float = 10.0) -> Future[ScoringResult]:
        return pool.submit(batcher.score, "q", [str(number) for number in numbers], timeout_s=timeout_s)

    return call


def hold(model: FakeModel, ask: Ask, number: int = 999) -> Future[ScoringResult]:
    """Occupy the model with one pair until the gate is opened."""
    model.gate.clear()
    model.began.clear()
    held = ask([number])
    assert model.began.wait(5)
    return held


def pending(batcher: MicroBatcher, count: int) -> None:
    """Wait until so many pairs are in the queue."""
    ends = time.monotonic() + 5
    while batcher.pending_pairs != count:
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_callers_share_batches_and_get_their_own(model: FakeModel, batcher: MicroBatcher, ask: Ask) -> None:
    held = hold(model, ask)
    calls = [ask([2 * number, 2 * number + 1]) for number in range(4)]
    pending(batcher, 8)
    model.gate.set()
    for number, call in enumerate(calls):
        assert call.result().logits.tolist() == [2 * number, 2 * number + 1]
    held.result()
    assert [len(batch) for batch in model.batches] == [1, 4, 4]


def test_no_batch_is_over_the_budget(model: FakeModel, ask: Ask) -> None:
    assert ask(range(30)).result().logits.tolist() == list(range(30))
    assert [len(batch) for batch in model.batches] == [4] * 7 + [2]


def test_a_newcomer_joins_at_the_next_batch(model: FakeModel, batcher: MicroBatcher, ask: Ask) -> None:
    held = hold(model, ask)
    large = ask(range(30))
    pending(batcher, 30)
    small = ask([100, 101])
    pending(batcher, 32)
    model.gate.set()
    assert small.result().logits.tolist() == [100, 101]
    assert large.result().logits.tolist() == list(range(30))
    assert held.result().logits.tolist() == [999]
    # the small one came later and was overtaken by nobody
    assert model.batches[1][:2] == [100, 101]


def test_a_large_call_is_overtaken_by_no_more_than_its_own_size(
    model: FakeModel, batcher: MicroBatcher, ask: Ask
) -> None:
    model.seconds = 0.002
    hold(model, ask)
    large = ask(range(12))
    pending(batcher, 12)
    model.gate.set()
    stop = threading.Event()

    def small_ones() -> None:
        while not stop.is_set():
            ask([500, 501]).result()

    threads = [threading.Thread(target=small_ones) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert large.result().logits.tolist() == list(range(12))
    stop.set()
    for thread in threads:
        thread.join()
    order = [number for batch in model.batches[1:] for number in batch]
    before = [number for number in order[: order.index(11)] if number >= 500]
    assert len(before) <= 12 + 2 * 4 + 4  # its size, what was in flight then, and a batch


def test_a_newcomer_does_not_make_an_admitted_call_late(model: FakeModel, batcher: MicroBatcher, ask: Ask) -> None:
    batcher._token_s, batcher._deviation_s = 0.01, 0.00125  # 125 ms a pair
    hold(model, ask)
    tight = ask(range(10), timeout_s=2)
    pending(batcher, 10)
    small = ask([100, 101, 102, 103, 104, 105, 106, 107])
    pending(batcher, 18)
    model.gate.set()
    assert tight.result().logits.tolist() == list(range(10))
    small.result()
    assert [number for batch in model.batches[1:] for number in batch][:10] == list(range(10))


def test_a_full_queue_refuses_at_once(model: FakeModel, batcher: MicroBatcher, ask: Ask) -> None:
    held = hold(model, ask)
    waiting = ask(range(30))
    pending(batcher, 30)
    with pytest.raises(Overloaded, match="limit of 40") as refused:
        ask(range(11)).result()
    assert refused.value.retry_after_s > 0
    model.gate.set()
    assert len(waiting.result().logits) == 30
    held.result()


def test_a_call_that_could_not_be_answered_in_time_is_refused_when_it_comes(
    model: FakeModel, batcher: MicroBatcher, ask: Ask
) -> None:
    batcher._token_s = 0.01
    held = hold(model, ask)
    with pytest.raises(Overloaded, match="retry later") as refused:
        ask(range(10), timeout_s=0.5).result()
    assert not held.done()  # it was refused while the model was busy, not after it
    assert 0.1 <= refused.value.retry_after_s < 10
    model.gate.set()
    held.result()
    # with nothing in front it is let in: otherwise a wrong estimate would last for ever
    batcher._token_s = 10.0
    assert len(ask(range(10), timeout_s=10).result().logits) == 10


def test_what_became_late_is_not_computed(model: FakeModel, batcher: MicroBatcher, ask: Ask) -> None:
    held = hold(model, ask)
    with pytest.raises(DeadlinePassed, match="0 of 3 pairs"):
        ask([1, 2, 3], timeout_s=0.05).result()
    model.gate.set()
    held.result()
    ask([4]).result()
    assert model.batches == [[999], [4]]
    assert batcher.pending_pairs == 0


def test_an_error_reaches_whom_it_concerns(model: FakeModel, batcher: MicroBatcher, ask: Ask) -> None:
    model.broken = {7}
    held = hold(model, ask)
    good, bad = ask([1, 2]), ask([7])
    pending(batcher, 3)
    model.gate.set()
    assert good.result().logits.tolist() == [1, 2]
    with pytest.raises(InferenceError, match="broken"):
        bad.result()
    held.result()
    assert ask([3]).result().logits.tolist() == [3]


def test_times_are_told_apart(model: FakeModel, batcher: MicroBatcher, ask: Ask) -> None:
    model.seconds = 0.02
    held = hold(model, ask)
    waiting = ask([1])
    pending(batcher, 1)
    time.sleep(0.1)
    model.gate.set()
    scored = waiting.result()
    held.result()
    assert scored.queue_ms >= 95
    assert scored.compute_ms > 15
    assert scored.tokenize_ms == 0.5
    assert scored.tokens == TOKENS


def test_nothing_is_cut_where_the_caller_forbids_it(model: FakeModel, batcher: MicroBatcher) -> None:
    with pytest.raises(TextTooLong, match="1 of 1 documents"):
        batcher.score("long", ["1"], timeout_s=5, truncate=False)
    assert batcher.score("long", ["1"], timeout_s=5).truncated == 1
    assert batcher.score("long", [], timeout_s=5).logits.shape == (0,)


def test_closing_finishes_what_waits_and_leaves_no_thread(model: FakeModel, pool: ThreadPoolExecutor) -> None:
    before = threading.active_count()
    batcher = MicroBatcher(model, gather_ms=0)
    call = pool.submit(batcher.score, "q", [str(number) for number in range(9)], timeout_s=10)
    assert model.began.wait(5)
    batcher.close()
    assert call.result().logits.tolist() == list(range(9))
    assert not batcher.alive
    with pytest.raises(InferenceError, match="has stopped"):
        batcher.score("q", ["1"], timeout_s=1)
    batcher.close()
    assert threading.active_count() == before + 1  # the pool's


def test_a_defect_in_the_model_leaves_nobody_waiting(
    model: FakeModel, ask: Ask, batcher: MicroBatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(_pairs: Sequence[Pair]) -> Logits:
        raise ZeroDivisionError

    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda given: seen.append(given.exc_type))
    monkeypatch.setattr(model, "infer", defect)
    with pytest.raises(InferenceError, match="thread has ended"):
        ask([1]).result()
    batcher._thread.join(5)
    assert seen == [ZeroDivisionError]
    assert not batcher.alive


def test_many_callers_on_the_real_model(tiny: CrossEncoder, pool: ThreadPoolExecutor) -> None:
    documents = ["boundary layer", "flat plates at speed", "birds", "", "plate " * 90, "layer of paint on a flat boat"]
    expected = tiny.score("flat plate", documents).logits
    batcher = MicroBatcher(tiny)
    calls = []
    for number in range(40):
        turn = number % len(documents)
        calls.append(pool.submit(batcher.score, "flat plate", documents[turn:] + documents[:turn], timeout_s=20))
    for number, call in enumerate(calls):
        assert np.roll(call.result().logits, number % len(documents)) == pytest.approx(expected, abs=1e-4)
    batcher.close()
