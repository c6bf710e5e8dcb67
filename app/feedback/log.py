"""Writer of the query log: a bounded queue, and one thread that writes batches.

A search only appends to a list. If the queue is full, or OpenSearch fails or is unavailable, entries are lost, and
``query_log_total`` counts them: logging must never slow down or block what it logs.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from app import telemetry
from app.config.service import QueryLogSettings
from app.errors import StoreError
from app.store.client import Cluster
from app.store.query_log import Entry, WriteOutcome, write_entries

CAPACITY = 10_000
BATCH = 500
LINGER_S = 0.5
"""Seconds that a batch waits for more entries."""
CLOSE_S = 2.0

_log = logging.getLogger("braid.querylog")


class QueryLog:
    """One instance per process; thread-safe. The thread starts with the first entry, so a process
    may fork before that.
    """

    def __init__(self, settings: QueryLogSettings, cluster: Cluster) -> None:
        self.enabled = settings.mode != "off"
        self._cluster = cluster
        self._changed = threading.Condition()
        self._waiting: deque[Entry] = deque()
        # entries that entered the queue since the start, and entries that left it
        self._taken = 0
        self._finished = 0
        self._urgent = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._failing = False

    def record(self, entry: Entry) -> None:
        """Queue an entry; never blocks, never raises. If the queue is full, the entry is dropped and counted."""
        if not self.enabled:
            return
        with self._changed:
            taken = len(self._waiting) < CAPACITY and not self._closed
            if taken:
                self._waiting.append(entry)
                self._taken += 1
                self._start()
                if len(self._waiting) in {1, BATCH}:  # only these lengths need to wake the writer
                    self._changed.notify_all()
        if not taken:
            telemetry.QUERY_LOG.labels("dropped").inc()

    def flush(self, timeout_s: float = CLOSE_S) -> bool:
        """Write waiting entries now; return whether they left the queue (written or failed) in time."""
        with self._changed:
            target = self._taken
            if self._finished >= target:
                return True
            self._urgent = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._finished >= target, timeout_s)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Write the remaining entries for at most `timeout_s` seconds and reject new ones. The rest is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        with self._changed:
            left = len(self._waiting)
            self._waiting.clear()
            self._finished += left
        if left:
            telemetry.QUERY_LOG.labels("dropped").inc(left)
            _log.warning("query log: %d entries were dropped at the end", left)

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="braid-querylog", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                outcome = self._write(batch)
                telemetry.QUERY_LOG.labels("written").inc(outcome.written)
                telemetry.QUERY_LOG.labels("failed").inc(outcome.failed)
                self._log_outcome(outcome)
            finally:
                with self._changed:
                    self._finished += len(batch)
                    self._changed.notify_all()

    def _next_batch(self) -> list[Entry]:
        """Return the next entries, after a pause that lets others join; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(lambda: len(self._waiting) >= BATCH or self._urgent or self._closed, LINGER_S)
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._urgent = self._urgent and bool(self._waiting)
            return batch

    def _write(self, batch: list[Entry]) -> WriteOutcome:
        try:
            return write_entries(self._cluster, batch)
        except StoreError as error:
            return WriteOutcome(0, len(batch), error.detail)

    def _log_outcome(self, outcome: WriteOutcome) -> None:
        """Log one line when writing begins to fail and one when it works again; never the text of a query."""
        failing = outcome.failed > 0
        if failing and not self._failing:
            _log.warning("query log: %d entries were not written: %s", outcome.failed, outcome.reason)
        elif self._failing and not failing:
            _log.warning("query log: entries are written again")
        self._failing = failing
