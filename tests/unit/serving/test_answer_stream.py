"""A stream that ends releases those who wait for its answer, however it ends."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from app.cache.codec import Json
from app.cache.single_flight import Lease
from app.deadline import Deadline
from app.features import ALL_ON
from app.search.request import AnswerRequest
from app.serving.answer import AnswerEvent, AnswerStream, AnswerUseCase
from app.serving.answer_cache import CacheLookup
from app.serving.reads import ReadCall
from app.store.filters import Scope


@pytest.mark.parametrize("read", [0, 1, 2])
def test_a_closed_stream_releases_those_who_wait_once(read: int) -> None:
    told: list[Json | None] = []
    ended: list[str] = []

    def events() -> Generator[AnswerEvent, None, None]:
        try:
            yield AnswerEvent("retrieval", {})
            yield AnswerEvent("token", {"text": "Yes."})
        finally:
            ended.append("events")

    stream = AnswerStream(events(), CacheLookup("miss", Scope("t"), lease=Lease(told.append)))
    steps = iter(stream)
    for _ in range(read):
        next(steps)
    stream.close()
    stream.close()
    assert told == [None]
    assert ended == (["events"] if read else [])
    assert list(stream) == []


@pytest.mark.parametrize(
    ("timeout_ms", "least", "most"), [(None, 60, 60), (600_000, 60, 60), (5000, 4, 5), (50, 0.05, 0.1)]
)
def test_a_caller_can_shorten_the_model_s_time_and_not_stretch_it(
    timeout_ms: int | None, least: float, most: float
) -> None:
    none: Any = None
    case = AnswerUseCase(5, 60.0, *[none] * 9)
    request = AnswerRequest(query="Why?", timeout_ms=timeout_ms)
    call = ReadCall(request, Scope("t"), ALL_ON, Deadline.after(timeout_ms or 10_000))
    assert least <= case._generation_s(call) <= most
