from __future__ import annotations

from collections.abc import Callable

from app.errors import StoreUnavailable
from app.ingest.news import News


def test_what_searches_see_is_told_at_once_and_the_rest_after_a_refresh() -> None:
    happened: list[object] = []
    news = News(happened.append)
    refresh: Callable[[], None] = lambda: happened.append("refresh")  # noqa: E731
    news.tell(refresh)
    assert happened == []
    news.wrote(visible=True, revoking=True)
    news.wrote(visible=False)
    news.wrote(visible=False)
    assert happened == [True]
    news.tell(refresh)
    news.tell(refresh)
    assert happened == [True, "refresh", False]


def test_what_could_not_be_made_visible_is_told_next_time() -> None:
    told: list[bool] = []
    news = News(told.append)

    def away() -> None:
        raise StoreUnavailable("it is away")

    news.wrote(visible=False)
    news.tell(away)
    assert told == []
    news.tell(lambda: None)
    assert told == [False]
