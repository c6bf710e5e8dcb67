"""Bounded queue between two stages; its writers can close it, and anyone can abort it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Aborted(Exception):
    """Another stage failed; this one must stop."""


class AbortSignal:
    """Signal that aborts all channels that share it; keeps the first reason."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channels: list[Channel[object]] = []
        self.reason: BaseException | None = None

    def register(self, channel: Channel[object]) -> None:
        with self._lock:
            self._channels.append(channel)

    def set(self, reason: BaseException) -> None:
        with self._lock:
            if self.reason is None:
                self.reason = reason
        for channel in self._channels:
            channel.wake()


class Channel(Generic[Item]):
    """FIFO queue; `put` blocks while it is full, iteration blocks while it is empty.

    Both raise `Aborted` once the shared `AbortSignal` is set. Iteration ends when all writers have called `close` and
    the queue is empty.
    """

    def __init__(self, abort: AbortSignal, *, size: int, writers: int = 1) -> None:
        self._abort = abort
        self._size = size
        self._writers = writers
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        abort.register(self)  # type: ignore[arg-type]

    def put(self, item: Item) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._size or self._abort.reason)
            self._check()
            self._items.append(item)
            self._changed.notify_all()

    def close(self) -> None:
        """Declare that one writer is done."""
        with self._changed:
            self._writers -= 1
            self._changed.notify_all()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def take(self, most: int) -> list[Item]:
        """Take up to `most` available items, waiting for the first; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._writers <= 0 or self._abort.reason)
            self._check()
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._changed.notify_all()
            return taken

    def __iter__(self) -> Iterator[Item]:
        while taken := self.take(1):
            yield taken[0]

    def _check(self) -> None:
        if self._abort.reason:
            raise Aborted
