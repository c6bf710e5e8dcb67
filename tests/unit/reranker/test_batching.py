from hypothesis import given
from hypothesis import strategies as st

from reranker.runtime.batching import plan_batches


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 1000))
def test_each_pair_is_in_one_batch_and_no_batch_over_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget


def test_like_lengths_lie_together() -> None:
    assert plan_batches([10, 200, 10, 200, 190], 600) == [[1, 3, 4], [0, 2]]
