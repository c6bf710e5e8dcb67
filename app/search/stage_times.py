"""What the stages of a search have lately taken: to skip one for which no time is left."""

from __future__ import annotations

import threading
import time

_WEIGHT = 0.2
"""Of the newest time in the mean."""
_ENOUGH = 5
"""Times that must be known before anything is skipped for them: the first ones are those of a cold start."""
_HALF_LIFE_S = 10.0
"""A mean loses its force when no new times come: what is always skipped would else never be tried again."""


class StageTimes:
    """Exponentially weighted means, in seconds. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, float, float]] = {}

    def note(self, stage: str, seconds: float) -> None:
        """A stage ended well and took so long."""
        with self._lock:
            count, mean, _ = self._known.get(stage, (0, seconds, 0.0))
            self._known[stage] = (count + 1, mean + _WEIGHT * (seconds - mean), time.monotonic())

    def expected_s(self, stage: str) -> float:
        """Seconds that it will take by all that is known; 0 where too little is."""
        with self._lock:
            count, mean, at = self._known.get(stage, (0, 0.0, 0.0))
        if count < _ENOUGH:
            return 0.0
        return float(mean * 0.5 ** ((time.monotonic() - at) / _HALF_LIFE_S))
