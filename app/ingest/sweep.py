"""Sweeps: what writers left that were killed is fenced and erased. See `ingest.protocol`."""

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
"""For so long an open head must have rested, by this process's own clock: its writer is taken for dead then. Attempts
get longer: theirs renew their intents every 20 s. Too early a sweep costs a writer another try, and nothing else."""
_FAILURE_PAUSE_S = 30.0
_LONGEST_PAUSE_S = 3600.0
"""Before a head that can't be tidied up is tried again: at first the former, then twice as long each time."""
_FORGET_S = 3600.0
_FORGET_DAYS = 30
"""So long a deleted document's readers are remembered, for the case that it comes back."""


@dataclass(slots=True)
class Sweeper:
    """Looks for heads that rest half way, and finishes what their writers began. Not thread-safe."""

    cluster: Cluster
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Key -> sequence number, and when it was first seen so (monotonic seconds)."""
    _stuck: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Key of a head that could not be tidied up -> when it is tried again (monotonic seconds), and the pause before."""

    def sweep(self) -> list[Head]:
        """One pass; the heads that were tidied up. Raises StoreError."""
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
    """Tidy up heads whose writers are gone; those that somebody else wrote meanwhile are left alone.

    Returns:
        Those that were tidied up. What can't be is fenced, stays open, and is no error: it is logged.

    Raises:
        StoreError: the cluster is away, or takes no writes.
    """
    return _sweep(cluster, heads)[0]


def _sweep(cluster: Cluster, heads: Sequence[Head]) -> tuple[list[Head], list[Head]]:
    """Those that were tidied up, and those that can't be."""
    steps = Steps(cluster, patience_s=5.0)
    # first the heads, so that nothing that is erased now can be committed later
    written = steps.write("seize", [fenced(head) for head in heads])
    seized = [item.head for item in written if item.head is not None]
    stuck = list(_finish(steps, seized))
    swept = [head for head in seized if head not in stuck]
    steps.clear(swept)
    return swept, stuck


def _finish(steps: Steps, heads: Sequence[Head]) -> Iterator[Head]:
    """Finish heads, all at once where that works; those that can't be: none of them may keep the others open."""
    try:
        steps.finish(heads)
    except StoreError as error:
        steps.refresh()  # raises where it is the cluster that does not work
        if len(heads) == 1:
            _log.warning("a document can't be tidied up (%s): run `braid heads audit`", error.detail)
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
                _log.info("tidied up after %d writes that were broken off", len(swept))
