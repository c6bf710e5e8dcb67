from hypothesis import given
from hypothesis import strategies as st

from reranker.runtime.batching import plan_batches

lengths = st.lists(st.integers(0, 600), max_size=80)
budgets = st.integers(1, 2000)


def padded(lengths: list[int], batch: list[int]) -> int:
    return len(batch) * max(lengths[i] for i in batch)


@given(lengths, budgets)
def test_every_text_is_in_exactly_one_batch(lengths: list[int], budget: int) -> None:
    planned = [index for batch in plan_batches(lengths, budget) for index in batch]
    assert sorted(planned) == list(range(len(lengths)))


@given(lengths, budgets)
def test_only_a_text_alone_may_exceed_the_budget(lengths: list[int], budget: int) -> None:
    for batch in plan_batches(lengths, budget):
        assert len(batch) == 1 or padded(lengths, batch) <= budget


@given(lengths, budgets)
def test_batches_hold_neighbours_in_length(lengths: list[int], budget: int) -> None:
    order = [lengths[index] for batch in plan_batches(lengths, budget) for index in batch]
    assert order == sorted(lengths, reverse=True)


def test_a_batch_is_filled_up_to_the_budget() -> None:
    assert [len(batch) for batch in plan_batches([100] * 25, 1000)] == [10, 10, 5]
