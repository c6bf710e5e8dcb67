from __future__ import annotations

from collections.abc import Callable

from app.errors import StoreUnavailable
from app.ingest.notifier import WriteNotifier


def test_what_searches_see_is_told_at_once_and_the_rest_after_a_refresh() -> None:
    happened: list[object] = []
    notifier = WriteNotifier(happened.append)
    refresh: Callable[[], None] = lambda: happened.append("refresh")  # noqa: E731
    notifier.flush(refresh)
    assert happened == []
    notifier.record(visible=True, revoking=True)
    notifier.record(visible=False)
    notifier.record(visible=False)
    assert happened == [True]
    notifier.flush(refresh)
    notifier.flush(refresh)
    assert happened == [True, "refresh", False]


def test_what_could_not_be_made_visible_is_told_next_time() -> None:
    told: list[bool] = []
    notifier = WriteNotifier(told.append)

    def away() -> None:
        raise StoreUnavailable("it is away")

    notifier.record(visible=False)
    notifier.flush(away)
    assert told == []
    notifier.flush(lambda: None)
    assert told == [False]
