"""How tasks of the ingest process share one encoder, and end by their deadlines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Self, cast

import numpy as np
import numpy.typing as npt
import pytest

from app.deadline import Deadline, WriteDeadline
from app.embedding.encoder import Encoder
from app.errors import DeadlineExceeded
from app.serving.ingest_worker import TaskEncoder, Turns


class Slow:
    """An encoder that takes a moment for each call, and remembers what it was given."""

    name, dimension, gives_tokens = "slow", 2, True

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def within(self, deadline: Deadline) -> Self:
        return self

    def encode_passages(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.seen.append(list(texts))
        time.sleep(0.01)
        return np.array([[len(text), 1] for text in texts], np.float32)

    def encode_passages_with_tokens(
        self, texts: Sequence[str], keep: Callable[..., bytes]
    ) -> tuple[npt.NDArray[np.float32], list[bytes]]:
        return self.encode_passages(texts), [keep(text) for text in texts]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def task(encoder: Slow, turns: Turns, seconds: float = 600, told: list[int] | None = None) -> TaskEncoder:
    progress = (lambda count: None) if told is None else told.append
    return TaskEncoder(cast(Encoder, encoder), turns, WriteDeadline.after(round(seconds * 1000)), progress)


def test_slices_give_what_the_whole_would() -> None:
    texts, told = ["x" * n for n in range(1, 12)], list[int]()
    encoder = Slow()
    vectors, kept = task(encoder, Turns(), told=told).encode_passages_with_tokens(texts, str.encode)
    assert vectors[:, 0].tolist() == list(range(1, 12))
    assert kept == [text.encode() for text in texts]
    assert np.array_equal(vectors, task(encoder, Turns()).encode_passages(texts))
    assert told[-1] == len(texts)
    assert told == sorted(told)


def test_a_small_task_has_its_turn_in_the_middle_of_a_large_one() -> None:
    encoder, turns = Slow(), Turns()
    large = threading.Thread(target=task(encoder, turns).encode_passages, args=(["large"] * 1000,))
    large.start()
    while len(encoder.seen) < 3:
        time.sleep(0.001)
    for _ in range(5):
        task(encoder, turns).encode_passages(["small"])
    small = [place for place, texts in enumerate(encoder.seen) if texts == ["small"]]
    large.join()
    assert len(small) == 5
    assert max(small) < len(encoder.seen) // 2


def test_turns_are_given_in_the_order_of_coming() -> None:
    turns, order = Turns(), list[int]()

    def come(number: int) -> None:
        with turns.turn():
            order.append(number)

    threads = [threading.Thread(target=come, args=(number,)) for number in range(8)]
    with turns.turn():
        for number, thread in enumerate(threads):
            thread.start()
            while len(turns._waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_nothing_is_embedded_or_cut_after_the_deadline() -> None:
    encoder = Slow()
    late = task(encoder, Turns(), seconds=0)
    for call in (lambda: late.encode_passages(["x"]), lambda: late.token_offsets("x")):
        with pytest.raises(DeadlineExceeded, match="BRAID_WRITE_TIMEOUT_S"):
            call()
    assert encoder.seen == []
    turns = Turns()
    with pytest.raises(DeadlineExceeded):
        task(encoder, turns, seconds=0.05).encode_passages(["x"] * 400)
    assert 0 < len(encoder.seen) < 100
    task(encoder, turns).encode_passages(["x"])  # its turn was given back
