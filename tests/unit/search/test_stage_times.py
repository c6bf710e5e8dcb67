from __future__ import annotations

import time

import pytest

from app.search import stage_times
from app.search.stage_times import StageTimes


def test_nothing_is_expected_before_enough_is_known() -> None:
    times = StageTimes()
    for _ in range(4):
        times.note("vector", 2.0)
        assert times.expected_s("vector") == 0
    times.note("vector", 2.0)
    assert times.expected_s("vector") == pytest.approx(2.0, rel=0.2)
    assert times.expected_s("fetch") == 0


def test_the_newest_counts_most_and_one_outlier_little() -> None:
    times = StageTimes()
    for _ in range(10):
        times.note("vector", 1.0)
    times.note("vector", 11.0)
    assert 2.4 < times.expected_s("vector") <= 3.0
    for _ in range(30):
        times.note("vector", 0.1)
    assert times.expected_s("vector") < 0.2


def test_what_is_not_heard_of_any_more_loses_its_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_times, "_HALF_LIFE_S", 0.01)
    times = StageTimes()
    for _ in range(5):
        times.note("vector", 1.0)
    time.sleep(0.2)
    assert times.expected_s("vector") < 0.01
