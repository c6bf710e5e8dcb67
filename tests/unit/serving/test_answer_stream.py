"""A stream that ends releases those who wait for its answer, however it ends."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from app.cache.codec import Json
from app.cache.single_flight import Lease
from app.serving.answer import AnswerEvent, AnswerStream
from app.serving.answer_cache import CacheLookup
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
