"""Tells of a run's writes, so that caches know: when searches see them, not before, and not for each single one."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.errors import StoreError

Announce = Callable[[bool], None]
"""Called after something written became visible; True: somebody may find less than before."""


class News:
    """Gathers what was written. Thread-safe."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._lock = threading.Lock()
        self._unseen = False

    def wrote(self, *, visible: bool, revoking: bool = False) -> None:
        """Told at once where searches see it already, else by the next `tell`."""
        if visible:
            self._announce(revoking)
            return
        with self._lock:
            self._unseen = True

    def tell(self, refresh: Callable[[], None]) -> None:
        """Make visible what is not yet, if there is anything, and tell of it; a cluster that is away: next time."""
        with self._lock:
            due, self._unseen = self._unseen, False
        if not due:
            return
        try:
            refresh()
        except StoreError:
            self.wrote(visible=False)
            return
        self._announce(False)
