"""Recent times of a search's stages, for skipping one that would take too long."""

from __future__ import annotations

import threading
import time

_WEIGHT = 0.2
"""Weight of the newest time in the mean."""
_ENOUGH = 5
"""Minimum number of times before a stage can be skipped: the first ones are those of a cold start."""
_HALF_LIFE_S = 10.0
"""Seconds in which a mean without new times halves: otherwise a skipped stage would never be tried again."""


class StageTimes:
    """Exponentially weighted means, in seconds. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, float, float]] = {}

    def note(self, stage: str, seconds: float) -> None:
        """Record the time of a stage that succeeded."""
        with self._lock:
            count, mean, _ = self._known.get(stage, (0, seconds, 0.0))
            self._known[stage] = (count + 1, mean + _WEIGHT * (seconds - mean), time.monotonic())

    def expected_s(self, stage: str) -> float:
        """Return the expected seconds of a stage; 0 if too little is known."""
        with self._lock:
            count, mean, at = self._known.get(stage, (0, 0.0, 0.0))
        if count < _ENOUGH:
            return 0.0
        return float(mean * 0.5 ** ((time.monotonic() - at) / _HALF_LIFE_S))
