"""The query log's way out of a request: a bounded queue and one thread that writes batches behind it.

A search only ever appends to a list. When the queue is full, or OpenSearch fails or is away, entries are lost, and
``query_log_total`` counts them: a log must not slow what it logs, nor hold it up.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from app import telemetry
from app.config import Settings
from app.errors import StoreError
from app.store.client import Cluster
from app.store.query_log import Entry, Written, write_entries

CAPACITY = 10_000
BATCH = 500
LINGER_S = 0.5
"""How long a batch waits to become larger."""
CLOSE_S = 2.0

_log = logging.getLogger("braid.querylog")


class QueryLog:
    """One a process, thread-safe. Its thread starts with the first entry, so a process may still fork before that."""

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        self.enabled = settings.query_log != "off"
        self._cluster = cluster
        self._changed = threading.Condition()
        self._waiting: deque[Entry] = deque()
        # entries that came into the queue since the start, and those that left it again
        self._taken = 0
        self._finished = 0
        self._urgent = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._failing = False

    def record(self, entry: Entry) -> None:
        """Put an entry into the queue; never waits for anything, never raises. A full queue drops it, and counts it."""
        if not self.enabled:
            return
        with self._changed:
            taken = len(self._waiting) < CAPACITY and not self._closed
            if taken:
                self._waiting.append(entry)
                self._taken += 1
                self._start()
                if len(self._waiting) in {1, BATCH}:  # the writer has no other reason to look
                    self._changed.notify_all()
        if not taken:
            telemetry.QUERY_LOG.labels("dropped").inc()

    def flush(self, timeout_s: float = CLOSE_S) -> bool:
        """Write what is waiting now, without lingering; whether it left the queue (written or failed) in time."""
        with self._changed:
            target = self._taken
            if self._finished >= target:
                return True
            self._urgent = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._finished >= target, timeout_s)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Write what is left, for at most `timeout_s` seconds, and take no more. What is left then is dropped."""
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
                self._tell(outcome)
            finally:
                with self._changed:
                    self._finished += len(batch)
                    self._changed.notify_all()

    def _next_batch(self) -> list[Entry]:
        """The next entries, after a pause in which others may join them; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(lambda: len(self._waiting) >= BATCH or self._urgent or self._closed, LINGER_S)
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._urgent = self._urgent and bool(self._waiting)
            return batch

    def _write(self, batch: list[Entry]) -> Written:
        try:
            return write_entries(self._cluster, batch)
        except StoreError as error:
            return Written(0, len(batch), error.detail)

    def _tell(self, outcome: Written) -> None:
        """One line when it begins to fail and one when it works again; never a word of a query."""
        failing = outcome.failed > 0
        if failing and not self._failing:
            _log.warning("query log: %d entries were not written: %s", outcome.failed, outcome.reason)
        elif self._failing and not failing:
            _log.warning("query log: entries are written again")
        self._failing = failing
