"""The queue: written in batches, dropped when full, failed without a sound in the search; each counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app import telemetry
from app.errors import StoreUnavailable
from app.feedback import log as module
from app.feedback.log import QueryLog
from tests.unit.feedback.canned import CannedCluster, entry, settings


def counts() -> dict[str, float]:
    return {name: telemetry.QUERY_LOG.labels(name)._value.get() for name in ("written", "dropped", "failed")}


@contextmanager
def counted(**expected: int) -> Iterator[None]:
    before = counts()
    yield
    found = {name: value - before[name] for name, value in counts().items()}
    assert found == {"written": 0, "dropped": 0, "failed": 0, **expected}


def test_entries_are_written_in_batches_into_the_month_of_their_ids() -> None:
    cluster = CannedCluster()
    log = QueryLog(settings().query_log, cluster)
    entries = [entry() for _ in range(1200)]
    with counted(written=1200):
        cluster.open.clear()
        for one in entries:
            log.record(one)
        cluster.open.set()
        assert log.flush(10)
        log.close()
    assert [source["query_id"] for batch in cluster.batches for source in batch] == [one.id for one in entries]
    assert max(len(batch) for batch in cluster.batches) <= module.BATCH
    month = f"braid-queries-{entries[0].made_at:%Y.%m}"
    assert cluster.actions[0] == {"create": {"_index": month, "_id": entries[0].id}}


def test_a_flush_does_not_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 3600)
    cluster = CannedCluster()
    log = QueryLog(settings().query_log, cluster)
    log.record(entry())
    assert log.flush(10)
    assert len(cluster.batches) == 1
    log.close()


def test_a_lonely_entry_lingers() -> None:
    cluster = CannedCluster()
    log = QueryLog(settings().query_log, cluster)
    log.record(entry())
    assert log.flush(10)
    log.record(entry())
    assert len(cluster.batches) == 1
    deadline = time.monotonic() + 10
    while len(cluster.batches) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    log.close()


def test_a_full_queue_drops_and_counts_and_the_search_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY", 3)
    cluster = CannedCluster()
    log = QueryLog(settings().query_log, cluster)
    with counted(written=4, dropped=6):
        cluster.open.clear()
        log.record(entry())
        log.flush(0.2)  # the writer has it, and is stuck
        for _ in range(9):
            log.record(entry())  # returns while the writer is stuck
        assert not log.flush(0.05)
        cluster.open.set()
        log.close()


def test_a_cluster_that_is_away_fails_the_batch_says_so_once_and_works_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Away(CannedCluster):
        away = True

        def request(self, method: str, path: str, **more: Any) -> Any:
            if self.away:
                raise StoreUnavailable("OpenSearch can't be reached")
            return super().request(method, path, **more)

    cluster = Away()
    log = QueryLog(settings().query_log, cluster)
    with caplog.at_level(logging.INFO), counted(failed=2, written=1):
        for _ in range(2):
            log.record(entry(query="a secret question"))
            assert log.flush(10)
        cluster.away = False
        log.record(entry())
        assert log.flush(10)
    log.close()
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "query log: 1 entries were not written: OpenSearch can't be reached",
        "query log: entries are written again",
    ]


def test_items_that_are_refused_fail_and_one_that_is_there_already_is_written() -> None:
    answers = [
        {"status": 201},
        {"status": 409, "error": {"type": "version_conflict_engine_exception"}},
        {"status": 403, "error": {"type": "cluster_block_exception", "reason": "blocked"}},
    ]
    log = QueryLog(settings().query_log, CannedCluster(lambda number: answers[number]))
    with counted(written=2, failed=1):
        for _ in range(3):
            log.record(entry())
        assert log.flush(10)
        log.close()


def test_closing_is_bounded_and_counts_what_is_left() -> None:
    cluster = CannedCluster()
    log = QueryLog(settings().query_log, cluster)
    with counted(dropped=3):
        cluster.open.clear()
        log.record(entry())
        log.flush(0.2)
        log.record(entry())
        log.record(entry())
        log.close(0.2)  # returns while the writer is stuck
        log.record(entry())  # too late
    cluster.open.set()
    assert log.flush(10)  # the next test's counts are its own


def test_a_log_that_is_off_starts_nothing() -> None:
    log = QueryLog(settings("off").query_log, CannedCluster())
    with counted():
        log.record(entry())
        assert log.flush(0)
        log.close()
    assert not log.enabled
