"""Batches by token budget: pairs of similar length together, to keep padding low."""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group the indices of `lengths` (tokens each) so that no batch holds more than `budget` padded tokens.

    A batch of n pairs is padded to its longest one and so contains ``n * longest`` tokens. The longest come first, so
    that the first batch reserves the memory for all. A pair longer than the budget is a batch of its own.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in by_length(lengths):
        if not batches or not fits(len(batches[-1]) + 1, longest, budget):
            batches.append([])
            longest = max(1, lengths[index])
        batches[-1].append(index)
    return batches


def by_length(lengths: Sequence[int]) -> list[int]:
    """Return the indices of `lengths`, longest first; equal ones in their order."""
    return sorted(range(len(lengths)), key=lambda index: -lengths[index])


def fits(count: int, longest: int, budget: int) -> bool:
    """Return whether `count` pairs padded to `longest` tokens stay within `budget`."""
    return count * longest <= budget
