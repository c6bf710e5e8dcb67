"""Notification of caches about a run's writes: when searches see them, and in batches."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.errors import StoreError

Announce = Callable[[bool], None]
"""Function to call after a write became visible; True: somebody may find less than before."""


class WriteNotifier:
    """Collects the writes of a run and notifies caches of them. Thread-safe."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._lock = threading.Lock()
        self._unseen = False

    def record(self, *, visible: bool, revoking: bool = False) -> None:
        """Record a write. Notify at once if searches see it already, else at the next `flush`."""
        if visible:
            self._announce(revoking)
            return
        with self._lock:
            self._unseen = True

    def flush(self, refresh: Callable[[], None]) -> None:
        """Make pending writes visible, if there are any, and notify; if the cluster is unavailable, retry at the next
        call.
        """
        with self._lock:
            due, self._unseen = self._unseen, False
        if not due:
            return
        try:
            refresh()
        except StoreError:
            self.record(visible=False)
            return
        self._announce(False)
