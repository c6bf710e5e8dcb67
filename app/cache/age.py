"""How old an entry is, by clocks that may be set: never younger than it is where this machine made it.

The time of day can be set back, and then an old entry looks young. So an entry carries the time since this machine
started, too, which only ever runs forwards; another machine's counts for nothing here, and its time of day has to do.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SKEW_MS = 1000.0
"""So far in the future the time of day of another machine may be; one that is further off tells nothing."""


def stamp() -> dict[str, Any]:
    """The moment, as `age_ms` takes it; plain JSON."""
    return {"time": time.time(), "boot": _boot(), "running": time.clock_gettime(time.CLOCK_BOOTTIME)}


def age_ms(made: object) -> float | None:
    """Milliseconds since `made`, of `stamp`; None where clocks contradict each other, or it is no stamp."""
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
    """Names this machine's run; empty where the system does not say."""
    return _BOOT.read_text().strip() if _BOOT.is_file() else ""
