"""Cache of complete answers, by exact key and by near-identical query.

The key covers everything that an answer depends on: the query (except for white space and composed characters), all
options, the caller's access, the tenant's generation and the state of its passages, the indexes, the tuning, the
models, the prompt, the settings and the flags. A change needs no deletion: older answers have keys that are never used
again.

With a staleness bound (`cache_staleness_ms`) additions and replacements are not in the key, and an older answer is
served while it is younger than the bound. Deletions and narrowed ACLs stay in the key.

An answer is served only if each version of a document in it is still live and readable for the caller, according to the
current heads; otherwise it is computed again.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from app import __version__, telemetry
from app.cache.age import age_ms, stamp
from app.cache.codec import Json, digest
from app.cache.generation import Generation, IndexGeneration
from app.cache.response_cache import ResponseCache
from app.cache.single_flight import Lease, SingleFlight
from app.config import Settings
from app.deadline import Deadline
from app.degradation import Reason
from app.errors import DeadlineExceeded, StoreError
from app.feedback.entries import Route
from app.generation.prompt import PROMPT_VERSION
from app.search.cached_models import partition_of
from app.search.readiness_gate import ReadinessGate, StoreState
from app.search.request import SearchRequest
from app.serving.freshness import Freshness
from app.serving.near import NearAnswers
from app.serving.reads import ReadCall
from app.store.filters import Scope
from app.store.head_check import HeadCheck, VersionName
from app.store.versions import TenantState

Outcome = Literal["off", "miss", "exact", "near"]

_WAIT_SHARE = 0.5
"""Share of the remaining budget to wait for another request that computes the same answer."""
_FRESH_SHARE, _FRESH_S = 0.1, 0.5
"""Share of the remaining budget, and maximum seconds, to read the state of passages. That takes milliseconds; on a busy
machine it takes longer, and then doing without the cache would make it busier. If nobody answers, the search needs the
time to find and report the problem: of a second, its legs must get what `store.client` considers fair."""
_FIELDS_NOT_IN_KEY = frozenset({"query", "timeout_ms", "cache", "stream"})
"""Fields of a request that its answer does not depend on; the query is handled separately."""
_CACHEABLE_REASONS = tuple(reason.value for reason in Reason if reason.cacheable)
"""Reasons of `degraded` that are caused by the request or the settings: the same request has the same outcome."""


@dataclass(slots=True)
class CacheLookup:
    """Result of a look-up, and the lease to compute the answer if there was none.

    `scope` is for the search: the caller's, without the caller's own name if no ACL contains it, so that callers with
    equal access share answers. `stale_ms`: age of the answer, if passages were added since. Call `finish` on every exit
    path. `near` is set for queries that near-identical ones may answer.
    """

    outcome: Outcome
    scope: Scope
    generation: int | None = None
    record: Json | None = None
    stale_ms: float | None = None
    key: str = ""
    bucket: str = ""
    near: ReadCall[SearchRequest] | None = None
    seen: Json = field(default_factory=dict)
    deadline: Deadline | None = None
    """Deadline for checking a found answer against the heads; None: no check is needed."""
    lease: Lease = field(default_factory=Lease)
    _keep: Callable[[CacheLookup, Json], None] | None = None

    @property
    def fields(self) -> Json:
        """Return the body's fields about the source of the answer; they are never cached."""
        return {"cache": self.outcome, "cache_stale_ms": self.stale_ms, "index_generation": self.generation}

    def keep(
        self, answer: Json, shown: Sequence[VersionName], reasons: Iterable[str] = (), log: Json | None = None
    ) -> Json:
        """Create the record of a computed answer; cache it unless another request might have a better outcome.
        answer: body of the answer.
        shown: versions of documents in it.
        reasons: reasons of its degradation.
        log: fields for the query log.
        """
        record = {"answer": answer, "made_at": stamp(), "seen": self.seen, "shown": shown, "log": log}
        if is_cacheable(reasons):
            self.finish(record)
        return record

    def finish(self, record: Json | None) -> None:
        """Cache the answer, or (None) report that there is none. Only the first call counts."""
        keep, self._keep = self._keep, None
        if keep is not None and record is not None:
            keep(self, record)
        self.lease.finish(record)


class AnswerCache:
    """Finds and stores answers. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        generation: IndexGeneration,
        responses: ResponseCache,
        flights: SingleFlight,
        freshness: Freshness,
        gate: ReadinessGate,
        models: Callable[[], Sequence[str | None]],
        near: NearAnswers,
        heads: HeadCheck,
    ) -> None:
        """Create the cache; `models` returns the names of the models; a remote one may report its name late."""
        self._generation = generation
        self._responses = responses
        self._flights = flights
        self._freshness = freshness
        self._gate = gate
        self._models = models
        self._near = near
        self._heads = heads
        self._staleness_ms = settings.cache.cache_staleness_ms
        self._identity = digest(__version__, PROMPT_VERSION, settings.answer_values())

    @contextmanager
    def open(self, route: Route, call: ReadCall[SearchRequest]) -> Iterator[CacheLookup]:
        """Look up as `look_up`; those who wait for the answer are released at the end of the block."""
        lookup = self.look_up(route, call)
        try:
            yield lookup
        finally:
            lookup.finish(None)

    def look_up(self, route: Route, call: ReadCall[SearchRequest]) -> CacheLookup:
        """Look up the answer to a call; finish the look-up in any case.

        Waiting for another request that computes the same answer takes at most half of the remaining time.

        Args:
            route: the call's name; each has its own answers.
        """
        request, features, deadline = call.request, call.features, call.deadline
        generation = self._generation.current(call.scope.tenant)
        writes = generation.writes if generation is not None else None
        off = CacheLookup("off", call.scope, writes)
        if not request.cache or not features.response_cache:
            return off
        if generation is None:
            telemetry.CACHE_REQUESTS.labels("responses", "unavailable").inc()
            return off
        try:
            fresh = Deadline.after(int(1000 * min(_FRESH_S, deadline.remaining_s("cache") * _FRESH_SHARE)))
            state = self._freshness.current(call.scope.tenant, generation.writes, fresh.remaining_s("cache"))
            store = self._gate.state(self._gate.begin(), fresh.remaining_s("cache"))
        except (StoreError, DeadlineExceeded, TimeoutError):
            return off  # the search reports the problem
        call = replace(call, scope=_effective(call.scope, state))
        lookup = self._keyed(route, call, generation, state, store)
        lookup.deadline = deadline if store.read_only is None else None
        if features.near_cache and request.mode != "lexical" and not request.explain:
            lookup.near = call
        return self._find(lookup, deadline)

    def _keyed(
        self,
        route: Route,
        call: ReadCall[SearchRequest],
        generation: Generation,
        state: TenantState,
        store: StoreState,
    ) -> CacheLookup:
        """Return the look-up with its key, and its bucket: everything in the key except the query."""
        request, features = call.request, call.features
        seen = {"writes": generation.writes, "state": state.fingerprint}
        bucket = digest(
            self._identity,
            list(self._models()),
            route,
            request.model_dump(mode="json", exclude=set(_FIELDS_NOT_IN_KEY)),
            partition_of(call.scope),
            generation.revocations,
            None if self._staleness_ms else seen,
            [features.lexical, features.vector, features.rerank, features.generation],
            [features.early_exit, features.learned_fusion],
            [store.identity, store.tuning.version],
        )
        query = unicodedata.normalize("NFC", " ".join(request.query.split()))
        key = f"braid:response:{digest(bucket, query)}"
        return CacheLookup("miss", call.scope, generation.writes, key=key, bucket=bucket, seen=seen)

    def _find(self, lookup: CacheLookup, deadline: Deadline) -> CacheLookup:
        if (found := self._get(lookup.key, lookup)) is not None:
            return self._hit(lookup, "exact", found)
        if lookup.near is not None:
            key = self._near.find(lookup.bucket, lookup.near)
            if key is not None and (found := self._get(key, lookup)) is not None:
                return self._hit(lookup, "near", found)
        wait_s = max(0.0, deadline.remaining_s("cache") * _WAIT_SHARE)
        record, lookup.lease = self._flights.join(lookup.key, lambda: self._get(lookup.key, lookup), wait_s)
        # its author may have begun before this request arrived
        if record is not None and self._is_live(record, lookup):
            return self._hit(lookup, "exact", record)
        telemetry.CACHE_REQUESTS.labels("responses", "miss").inc()
        lookup._keep = self._keep
        return lookup

    def _hit(self, lookup: CacheLookup, outcome: Literal["exact", "near"], record: Json) -> CacheLookup:
        if outcome == "exact":
            telemetry.CACHE_REQUESTS.labels("responses", "hit").inc()
        lookup.outcome, lookup.record = outcome, record
        if record["seen"] != lookup.seen:
            lookup.stale_ms = age_ms(record["made_at"])
            telemetry.CACHE_REQUESTS.labels("responses", "stale").inc()
        return lookup

    def _get(self, key: str, lookup: CacheLookup) -> Json | None:
        """Return the record under `key`, unless it is too old."""
        record = self._responses.get(key)
        if record is None or not {"seen", "made_at", "answer"} <= record.keys():
            return None
        if record["seen"] != lookup.seen:
            age = age_ms(record["made_at"])
            if age is None or age > self._staleness_ms:
                return None
        return record if self._is_live(record, lookup) else None

    def _is_live(self, record: Json, lookup: CacheLookup) -> bool:
        """Return whether everything in a record may still be shown."""
        if lookup.deadline is None:
            return True
        if "shown" not in record:  # of an older Braid
            return False
        versions = {(document_id, token) for document_id, token in record["shown"]}
        try:
            return versions == self._heads.in_force(lookup.scope, versions, lookup.deadline.remaining_s("heads"))
        except (StoreError, DeadlineExceeded):
            return False  # the search reports the problem

    def _keep(self, lookup: CacheLookup, record: Json) -> None:
        if self._responses.put(lookup.key, record) and lookup.near is not None:
            self._near.add(lookup.bucket, lookup.near, lookup.key)


def is_cacheable(reasons: Iterable[str]) -> bool:
    """Return whether an answer with these degradations may be cached: the same request has the same outcome again."""
    return all(reason.startswith(_CACHEABLE_REASONS) for reason in reasons)


def _effective(scope: Scope, state: TenantState) -> Scope:
    """Return the scope without the caller's own name if no document contains it: its access is the same."""
    if scope.principals is None or state.users is None:
        return scope
    own = frozenset(name for name in scope.principals if name.startswith("user:"))
    return replace(scope, principals=scope.principals - (own - state.users))
