"""The age of an entry, by clocks that contradict each other."""

from __future__ import annotations

import time

import pytest

from app.cache.age import age_ms, stamp


def test_an_entry_of_this_machine_ages_whatever_the_time_of_day_does(monkeypatch: pytest.MonkeyPatch) -> None:
    made, now, running = stamp(), time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr(time, "clock_gettime", lambda _: running + 20)
    for back_s in (0, 10, 20, 20.5):
        monkeypatch.setattr(time, "time", lambda back_s=back_s: now + 20 - back_s)
        found = age_ms(made)
        assert found is not None
        assert found >= 19_000
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    assert age_ms(made) is None


def test_an_entry_of_another_machine_ages_by_the_time_of_day_and_is_never_of_the_future() -> None:
    made = {**stamp(), "boot": "another"}
    assert (age_ms({**made, "time": time.time() - 5, "running": 1e9}) or 0) >= 5000
    assert age_ms({**made, "time": time.time() + 60}) is None


@pytest.mark.parametrize("made", [None, 0, 1.8e9, "now", [], {}, {"time": 1}, {**stamp(), "time": "x"}])
def test_what_is_no_stamp_has_no_age(made: object) -> None:
    assert age_ms(made) is None
