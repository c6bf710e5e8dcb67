"""Threads of the server's requests: so many that work, and beside them those that only wait for a language model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")
_current = threading.local()


class RequestThreads(ThreadPoolExecutor):
    """A thread pool in which `turns` calls run at once, and up to `aside` more that have stepped aside.

    Threads are started when they are needed; a waiting one has some tens of kilobytes.
    """

    def __init__(self, turns: int, aside: int) -> None:
        super().__init__(turns + aside, thread_name_prefix="braid-request")
        self._turns = threading.Semaphore(turns)

    def submit(self, fn: Callable[_Args, _Result], /, *args: _Args.args, **kwargs: _Args.kwargs) -> Future[_Result]:
        """Run `fn` as soon as it has a turn."""
        return super().submit(self._run, fn, *args, **kwargs)

    def _run(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> _Result:
        self._turns.acquire()
        _current.turns = self._turns
        try:
            return fn(*args, **kwargs)
        finally:
            step_aside()


def step_aside() -> None:
    """Give this thread's turn to the next call, for good: from now on this one mostly waits. Nothing elsewhere."""
    turns, _current.turns = getattr(_current, "turns", None), None
    if turns is not None:
        turns.release()
