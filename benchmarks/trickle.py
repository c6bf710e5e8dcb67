"""A steady stream of requests that notices what callers see, for `faults.py`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
from fault_parts import LLM

KINDS = ("cached", "made", "new", "answer")
BUDGET_MS, PER_SECOND = 1000, 8
WHOLE_S, LONGEST_RECOVERY_S = 2.0, 30.0


@dataclass(slots=True)
class Seen:
    """One request: when it was sent, how long it took, what came. `status` 0: no answer at all."""

    kind: str
    at: float
    ms: float
    status: int
    cache: str = ""
    degraded: tuple[str, ...] = ()
    model: str = ""
    ids: tuple[str, ...] = ()
    problem: str = ""
    whole: bool = False


class Trickle:
    """A steady stream of requests, and what is known of their answers in good days."""

    def __init__(self, url: str, queries: Sequence[str], budget_ms: int = BUDGET_MS) -> None:
        self._queries, self._budget_ms = queries, budget_ms
        self._client = httpx2.AsyncClient(base_url=url, timeout=30, trust_env=False)
        self.seen: list[Seen] = []
        self.breakers: list[tuple[float, dict[str, float]]] = []
        self._usual: dict[str, tuple[str, ...]] = {}
        self.fused: dict[str, tuple[str, ...]] = {}
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._running: list[asyncio.Task[Any]] = []

    async def learn(self) -> None:
        """What each query finds when all is well; waits until the service answers whole."""
        until = time.monotonic() + 60
        for query in self._queries:
            while not (found := await self._post("made", "/v1/search", query, cache=False)).ids or found.degraded:
                assert time.monotonic() < until, found
                await asyncio.sleep(0.3)
            self._usual[query] = found.ids
            self.fused[query] = (await self._post("made", "/v1/search", query, cache=False, rerank=False)).ids
            await self._post("cached", "/v1/search", query)

    async def _post(self, kind: str, path: str, query: str, **body: Any) -> Seen:
        at = time.monotonic()
        try:
            answer = await self._client.post(path, json={"query": query, "timeout_ms": self._budget_ms, **body})
            found = answer.json()
        except (httpx2.HTTPError, ValueError) as error:
            return Seen(kind, at, (time.monotonic() - at) * 1000, 0, problem=type(error).__name__)
        ms = (time.monotonic() - at) * 1000
        if answer.status_code != 200:
            return Seen(kind, at, ms, answer.status_code, problem=str(found.get("type", "")).rpartition(":")[2])
        degraded = tuple(f"{item['stage']}: {item['reason'].partition(':')[0]}" for item in found["degraded"])
        ids = tuple(item["id"] for item in found["results"])
        return Seen(kind, at, ms, 200, found["cache"], degraded, found.get("model", ""), ids)

    async def one(self, kind: str) -> None:
        """Send a request of a kind, and note what came."""
        number = next(self._numbers)
        query = self._queries[number // len(KINDS) % len(self._queries)]
        if kind == "cached":
            seen = await self._post(kind, "/v1/search", query)
            seen.whole = seen.cache == "exact"
        elif kind == "made":
            seen = await self._post(kind, "/v1/search", query, cache=False)
            seen.whole = seen.ids == self._usual[query]
            if seen.status == 200 and not seen.whole:
                seen.problem = "fused order" if seen.ids == self.fused[query] else "other results"
        elif kind == "new":
            seen = await self._post(kind, "/v1/search", f"{query} ({number} {time.time_ns()})")
            seen.whole = seen.cache == "miss"
        else:
            seen = await self._post(kind, "/v1/answer", query, cache=False)
            seen.whole = seen.model == LLM
        seen.whole = seen.whole and seen.status == 200 and not seen.degraded
        self.seen.append(seen)

    async def _send(self) -> None:
        due = time.monotonic()
        for kind in itertools.cycle(KINDS):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self.one(kind))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            due += 1 / PER_SECOND

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(httpx2.HTTPError):
                lines = (await self._client.get("/metrics")).text.splitlines()
                states = {line.split('"')[1]: float(line.split()[-1]) for line in lines if "breaker_state{" in line}
                self.breakers.append((time.monotonic(), states))
            await asyncio.sleep(0.25)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Requests go out while the block runs; all have ended afterwards."""
        self._running = [asyncio.create_task(self._send()), asyncio.create_task(self._watch())]
        try:
            yield
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, *self._tasks, return_exceptions=True)

    async def until_whole(self, since: float, longest_s: float = LONGEST_RECOVERY_S) -> float | None:
        """Seconds from `since` to the first request after which all answers are whole; None: never, in that time."""
        while True:
            await asyncio.sleep(0.1)
            later = [item for item in self.seen if item.at >= since]
            broken = [item.at for item in later if not item.whole]
            first = min((item.at for item in later if item.at > max(broken, default=since)), default=None)
            now = time.monotonic()
            if first is not None and now - first > WHOLE_S:
                return round(first - since, 2)
            if now - since > longest_s:
                return None

    async def close(self) -> None:
        await self._client.aclose()
