"""Batches of texts of like length: little padding, and no batch so large that it holds a query up."""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group the indices of `lengths` (tokens each) so that no batch holds more than `budget` padded tokens.

    A batch of n texts is padded to its longest one and so holds ``n * longest`` tokens. Longest first: memory is
    reserved once, by the first batch. A text longer than the budget is a batch of its own.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or (len(batches[-1]) + 1) * longest > budget:
            batches.append([])
            longest = max(1, lengths[index])
        batches[-1].append(index)
    return batches
