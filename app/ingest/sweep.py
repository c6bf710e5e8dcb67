"""Sweeps: what writers left that were killed is fenced and erased. See `ingest.protocol`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from app.errors import StoreError
from app.ingest.protocol import Steps
from app.store.client import Cluster
from app.store.heads import Head, find_open

_log = logging.getLogger("braid.sweep")

_INTERVAL_S = 2.0
_REST_S, _PENDING_REST_S = 3.0, 60.0
"""For so long an open head must have rested, by this process's own clock: its writer is taken for dead then. Attempts
get longer: theirs renew their intents every 20 s. Too early a sweep costs a writer another try, and nothing else."""
_FAILURE_PAUSE_S = 30.0


@dataclass(slots=True)
class Sweeper:
    """Looks for heads that rest half way, and finishes what their writers began. Not thread-safe."""

    cluster: Cluster
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Key -> sequence number, and when it was first seen so (monotonic seconds)."""

    def sweep(self) -> list[Head]:
        """One pass; the heads that were tidied up. Raises StoreError."""
        now = time.monotonic()
        heads = list(find_open(self.cluster))
        self._seen = {head.key: self._first_seen(head, now) for head in heads}
        return sweep_heads(self.cluster, [head for head in heads if self._rests(head, now)])

    def _first_seen(self, head: Head, now: float) -> tuple[int, float]:
        before = self._seen.get(head.key)
        return before if before is not None and before[0] == head.seq_no else (head.seq_no, now)

    def _rests(self, head: Head, now: float) -> bool:
        return now - self._seen[head.key][1] >= (_PENDING_REST_S if head.pending else _REST_S)


def sweep_heads(cluster: Cluster, heads: Sequence[Head]) -> list[Head]:
    """Tidy up heads whose writers are gone; those that somebody else wrote meanwhile are left alone."""
    steps = Steps(cluster, patience_s=5.0)
    # first the heads, so that nothing that is erased now can be committed later
    fenced = [replace(head, pending=(), garbage=(*head.garbage, *head.pending)) for head in heads]
    seized = [item.head for item in steps.write("seize", fenced) if item.head is not None]
    steps.finish(seized)
    steps.clear(seized)
    return seized


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
        pause = _INTERVAL_S
        while not self._closed.wait(pause):
            try:
                swept = self._sweeper.sweep()
            except StoreError as error:
                pause = _FAILURE_PAUSE_S
                _log.debug("a sweep failed: %s", error.detail)
                continue
            pause = _INTERVAL_S
            if swept:
                _log.info("tidied up after %d writes that were broken off", len(swept))
