"""Sweeps: fence and erase what killed writers left behind. See `ingest.protocol`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from app.errors import StoreError
from app.ingest.protocol import Steps, fenced
from app.store.client import Cluster
from app.store.heads import Head, find_open, forget_deleted

_log = logging.getLogger("braid.sweep")

_INTERVAL_S = 2.0
_REST_S, _PENDING_REST_S = 3.0, 60.0
"""Seconds without a change, by this process's own clock, after which an open head's writer counts as dead. Attempts get
more time, because they renew their intents every 20 s. Sweeping too early only costs a writer another try."""
_FAILURE_PAUSE_S = 30.0
_LONGEST_PAUSE_S = 3600.0
"""Pause before a failed head is tried again: the first one, doubled each time up to the longest."""
_FORGET_S = 3600.0
_FORGET_DAYS = 30
"""Days for which a deleted document's readers are remembered, in case it comes back."""


@dataclass(slots=True)
class Sweeper:
    """Finds heads with unfinished writes and finishes them. Not thread-safe."""

    cluster: Cluster
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Key -> sequence number, and when it was first seen (monotonic seconds)."""
    _stuck: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Key of a failed head -> time of the next try (monotonic seconds), and the previous pause."""

    def sweep(self) -> list[Head]:
        """Sweep once; return the heads that were finished. Raises StoreError."""
        now = time.monotonic()
        heads = list(find_open(self.cluster))
        self._seen = {head.key: self._first_seen(head, now) for head in heads}
        self._stuck = {key: held for key, held in self._stuck.items() if key in self._seen}
        due = [head for head in heads if self._rests(head, now) and now >= self._stuck.get(head.key, (now, 0))[0]]
        swept, stuck = _sweep(self.cluster, due)
        for head in swept:
            self._stuck.pop(head.key, None)
        for head in stuck:
            pause = min(2 * self._stuck.get(head.key, (0, _FAILURE_PAUSE_S / 2))[1], _LONGEST_PAUSE_S)
            self._stuck[head.key] = time.monotonic() + pause, pause
        return swept

    def _first_seen(self, head: Head, now: float) -> tuple[int, float]:
        before = self._seen.get(head.key)
        return before if before is not None and before[0] == head.seq_no else (head.seq_no, now)

    def _rests(self, head: Head, now: float) -> bool:
        rest_s = _PENDING_REST_S if head.pending else _REST_S
        return now - self._seen[head.key][1] >= rest_s


def sweep_heads(cluster: Cluster, heads: Sequence[Head]) -> list[Head]:
    """Finish the writes of heads whose writers are gone; heads written by others meanwhile are left alone.

    Returns:
        The finished heads. Heads that can't be finished are fenced, stay open and are logged; that is not an error.

    Raises:
        StoreError: the cluster is unavailable or rejects writes.
    """
    return _sweep(cluster, heads)[0]


def _sweep(cluster: Cluster, heads: Sequence[Head]) -> tuple[list[Head], list[Head]]:
    """Return the finished heads, and those that can't be finished."""
    steps = Steps(cluster, patience_s=5.0)
    # heads first, so that nothing erased now can be committed later
    written = steps.write("seize", [fenced(head) for head in heads])
    seized = [item.head for item in written if item.head is not None]
    stuck = list(_finish(steps, seized))
    swept = [head for head in seized if head not in stuck]
    steps.clear(swept)
    return swept, stuck


def _finish(steps: Steps, heads: Sequence[Head]) -> Iterator[Head]:
    """Finish heads, together if possible; yield those that can't be finished, so that they do not block the others."""
    try:
        steps.finish(heads)
    except StoreError as error:
        steps.refresh()  # raises if the cluster itself is the problem
        if len(heads) == 1:
            _log.warning("the writes of a document can't be finished (%s): run `braid heads audit`", error.detail)
            yield heads[0]
            return
        middle = len(heads) // 2
        yield from _finish(steps, heads[:middle])
        yield from _finish(steps, heads[middle:])


class BackgroundSweep:
    """A thread that sweeps every two seconds until it is closed."""

    def __init__(self, cluster: Cluster) -> None:
        self._sweeper = Sweeper(cluster)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="braid-sweep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        pause, forgot_at = _INTERVAL_S, time.monotonic()
        while not self._closed.wait(pause):
            try:
                swept = self._sweeper.sweep()
                if time.monotonic() - forgot_at > _FORGET_S:
                    forgot_at = time.monotonic()
                    forget_deleted(self._sweeper.cluster, days=_FORGET_DAYS)
            except StoreError as error:
                pause = _FAILURE_PAUSE_S
                _log.debug("a sweep failed: %s", error.detail)
                continue
            pause = _INTERVAL_S
            if swept:
                _log.info("finished %d interrupted writes", len(swept))
