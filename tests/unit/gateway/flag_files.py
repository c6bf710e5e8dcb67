"""Files of flags for tests."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from typing import Any

from app.gateway.flag_file import shipped

GOOD: dict[str, Any] = json.loads(shipped().dump())
OFF_FOR_A = [{"tenants": ["a"], "value": False}]


def flags_with(name: str = "rerank", **changes: Any) -> bytes:
    """The flags that ship, with `changes` to one."""
    data = copy.deepcopy(GOOD)
    data["flags"][name] |= changes
    return json.dumps(data).encode()


def wait_until(true: Callable[[], bool], patience_s: float = 60) -> None:
    """Return when `true`; a deadline that only a hang reaches."""
    until = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.02)
