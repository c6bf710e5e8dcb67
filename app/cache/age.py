"""Age of cache entries by adjustable clocks: an entry made on this machine never looks younger than it is.

The time of day can be set back, and then an old entry looks young. So an entry also carries the time since this
machine's boot, which only increases. For an entry of another machine only the time of day is available.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SKEW_MS = 1000.0
"""Tolerated lead of another machine's clock; an entry further in the future has no known age."""


def stamp() -> dict[str, Any]:
    """Return the current moment for `age_ms`, as plain JSON."""
    return {"time": time.time(), "boot": _boot(), "running": time.clock_gettime(time.CLOCK_BOOTTIME)}


def age_ms(made: object) -> float | None:
    """Return milliseconds since `made` (from `stamp`); None if clocks contradict each other or it is not a stamp."""
    if not isinstance(made, dict):
        return None
    now = stamp()
    try:
        ages: list[float] = [(now["time"] - float(made["time"])) * 1000]
        if made["boot"] and made["boot"] == now["boot"]:
            ages.append((now["running"] - float(made["running"])) * 1000)
    except (KeyError, TypeError, ValueError):
        return None
    if min(ages) < -_SKEW_MS:
        return None
    return max(0.0, *ages)


@cache
def _boot() -> str:
    """Return the id of this machine's boot; empty if the system has none."""
    return _BOOT.read_text().strip() if _BOOT.is_file() else ""
