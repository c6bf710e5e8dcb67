"""Whether an answer is there already: the cache of whole answers, by exact key and by near-identical query.

The key names everything that an answer depends on: the query (white space and composed characters aside), all options,
what the caller may see, the tenant's generation and what its passages look like, the indexes, the tuning, the models,
the prompt, the settings and the flags. Nothing has to be deleted when something changes: what was cached before lies
under a key that nobody asks for any more.

With a bound on staleness (`cache_staleness_ms`) additions and replacements are left out of the key, and an answer made
before the last of them is served while it is younger than the bound. Deletions and narrowed ACLs stay in the key.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from app import __version__, telemetry
from app.cache.age import age_ms, stamp
from app.cache.entries import Json, digest
from app.cache.generation import Generation, IndexGeneration
from app.cache.responses import ResponseCache
from app.cache.single_flight import SingleFlight, Ticket
from app.config import Settings
from app.deadline import Deadline
from app.errors import DeadlineExceeded, StoreError
from app.features import Features
from app.generation.prompt import PROMPT_VERSION
from app.search.cached_models import partition_of
from app.search.readiness import ReadinessGate, StoreState
from app.search.request import SearchRequest
from app.serving.freshness import Freshness
from app.serving.near import Asking, NearAnswers
from app.store.filters import Scope
from app.store.versions import TenantState

Outcome = Literal["off", "miss", "exact", "near"]

_WAIT_SHARE = 0.5
"""Of what is left of the budget, for somebody else who computes the same."""
_FRESH_SHARE, _FRESH_S = 0.1, 0.5
"""Of what is left of the budget, and at most, for asking whether passages changed. That is answered in milliseconds; on
a busy machine it takes longer, and going without the cache then makes it busier. Where nobody answers, the search needs
the time to find out, and to say, what is wrong: of a second, its legs must get what `store.client` takes for fair."""
_PASSING = frozenset({"query", "timeout_ms", "cache", "stream"})
"""Fields of a request that its answer does not depend on; the query is taken apart."""
_LASTING = ("switched-off", "query-cut", "no-model", "no-threshold", "not-configured")
"""Reasons of `degraded` that lie in the request or the settings: the same request would fare the same."""
_ELSEWHERE = frozenset(
    """
    host port workers threads concurrency queue worker_max_requests cors_origins audit_log url redis_url max_body_bytes
    data_dir cache_dir java_home opensearch_home knn_lib opensearch_url opensearch_user opensearch_password
    opensearch_ca_file opensearch_timeout_s api_key keys_secret rate_limit_key rate_limit_tenant jwt_jwks_url jwt_issuer
    jwt_audience jwt_algorithms jwt_tenant_claim jwt_groups_claim jwt_roles_claim jwt_leeway_s query_log query_log_key
    query_log_days reranker_key llm_api_key flags_file flagd tenant timeout_ms response_cache_ttl_s
    embedding_cache_entries cache_ttl_s
    """.split()  # noqa: SIM905 - a list of words
)
"""Settings that no answer depends on. All others are part of the key, so that a new one is, until it is named here."""


@dataclass(slots=True)
class Look:
    """What a look into the cache found, and what has to be told when an answer was made after all.

    `scope` is what to search with: as the caller's, less the caller's own name where no ACL names it, so that callers
    with equal rights share answers. `stale_ms`: how old the answer is, if passages were added since. `finish` must be
    called, whatever happens. `asking` is set for queries that near-identical ones may answer.
    """

    outcome: Outcome
    scope: Scope
    generation: int | None = None
    record: Json | None = None
    stale_ms: float | None = None
    key: str = ""
    bucket: str = ""
    asking: Asking | None = None
    seen: Json = field(default_factory=dict)
    ticket: Ticket = field(default_factory=Ticket)
    _keep: Callable[[Look, Json], None] | None = None

    def finish(self, record: Json | None) -> None:
        """Keep the answer, or (None) say that there is none to keep. Only the first call counts."""
        keep, self._keep = self._keep, None
        if keep is not None and record is not None:
            keep(self, record)
        self.ticket.finish(record)


class AnswerCache:
    """Looks for answers, and keeps them. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        generation: IndexGeneration,
        responses: ResponseCache,
        flights: SingleFlight,
        freshness: Freshness,
        gate: ReadinessGate,
        models: Callable[[], Sequence[str | None]],
        near: NearAnswers | None = None,
    ) -> None:
        """`models` names the models in use; a remote one may say its name late."""
        self._generation = generation
        self._responses = responses
        self._flights = flights
        self._freshness = freshness
        self._gate = gate
        self._models = models
        self._near = near
        self._staleness_ms = settings.cache_staleness_ms
        plain = settings.model_dump(mode="json", exclude=set(_ELSEWHERE))
        self._identity = digest(__version__, PROMPT_VERSION, plain)

    def look(self, route: str, request: SearchRequest, scope: Scope, features: Features, deadline: Deadline) -> Look:
        """Look for the answer to a request.

        Args:
            route: the call; each has answers of its own.
            request: as asked.
            scope: what the caller may see.
            features: which caches are on, and what the answer is made with.
            deadline: of the request; waiting for somebody who computes the same answer takes half of it at most.
        """
        generation = self._generation.current(scope.tenant)
        writes = generation.writes if generation is not None else None
        off = Look("off", scope, writes)
        if not request.cache or not features.response_cache:
            return off
        if generation is None:
            telemetry.CACHE_REQUESTS.labels("responses", "unavailable").inc()
            return off
        try:
            fresh = Deadline.after(int(1000 * min(_FRESH_S, deadline.remaining_s("cache") * _FRESH_SHARE)))
            state = self._freshness.current(scope.tenant, generation.writes, fresh.remaining_s("cache"))
            store = self._gate.state(self._gate.begin(), fresh.remaining_s("cache"))
        except (StoreError, DeadlineExceeded, TimeoutError):
            return off  # the search says what is wrong
        look = self._asked(route, request, scope, features, generation, state, store)
        if self._near is not None and features.near_cache and request.mode != "lexical" and not request.explain:
            look.asking = Asking(request, look.scope, features, deadline)
        return self._find(look, deadline)

    def _asked(
        self,
        route: str,
        request: SearchRequest,
        scope: Scope,
        features: Features,
        generation: Generation,
        state: TenantState,
        store: StoreState,
    ) -> Look:
        """The look with its key, and its bucket: all that the key names but the query."""
        scope = _effective(scope, state)
        seen = {"writes": generation.writes, "state": state.fingerprint}
        bucket = digest(
            self._identity,
            list(self._models()),
            route,
            request.model_dump(mode="json", exclude=set(_PASSING)),
            partition_of(scope),
            generation.revocations,
            None if self._staleness_ms else seen,
            [features.lexical, features.vector, features.rerank, features.generation],
            [features.early_exit, features.learned_fusion],
            [store.identity, store.tuning.version],
        )
        query = unicodedata.normalize("NFC", " ".join(request.query.split()))
        key = f"braid:response:{digest(bucket, query)}"
        return Look("miss", scope, generation.writes, key=key, bucket=bucket, seen=seen)

    def _find(self, look: Look, deadline: Deadline) -> Look:
        if (found := self._get(look.key, look)) is not None:
            return self._hit(look, "exact", found)
        if self._near is not None and look.asking is not None:
            key = self._near.find(look.bucket, look.asking)
            if key is not None and (found := self._get(key, look)) is not None:
                return self._hit(look, "near", found)
        wait_s = max(0.0, deadline.remaining_s("cache") * _WAIT_SHARE)
        record, look.ticket = self._flights.join(look.key, lambda: self._get(look.key, look), wait_s)
        if record is not None:
            return self._hit(look, "exact", record)
        telemetry.CACHE_REQUESTS.labels("responses", "miss").inc()
        look._keep = self._keep
        return look

    def _hit(self, look: Look, outcome: Literal["exact", "near"], record: Json) -> Look:
        if outcome == "exact":
            telemetry.CACHE_REQUESTS.labels("responses", "hit").inc()
        look.outcome, look.record = outcome, record
        if record["seen"] != look.seen:
            look.stale_ms = age_ms(record["made_at"])
            telemetry.CACHE_REQUESTS.labels("responses", "stale").inc()
        return look

    def _get(self, key: str, look: Look) -> Json | None:
        """The record under `key`, unless it is older than it may be."""
        record = self._responses.get(key)
        if record is None or not {"seen", "made_at", "answer"} <= record.keys():
            return None
        if record["seen"] != look.seen:
            age = age_ms(record["made_at"])
            if age is None or age > self._staleness_ms:
                return None
        return record

    def _keep(self, look: Look, record: Json) -> None:
        if self._responses.put(look.key, record) and self._near is not None and look.asking is not None:
            self._near.add(look.bucket, look.asking, look.key)


def record_of(look: Look, answer: Json, **more: Any) -> Json:
    """What is kept of an answer: the answer itself, when it was made, and the generation that it was made in."""
    return {"answer": answer, "made_at": stamp(), "seen": look.seen, **more}


def is_lasting(reasons: Sequence[str]) -> bool:
    """Whether an answer that went without something may be kept: the same request would fare the same again."""
    return all(reason.startswith(_LASTING) for reason in reasons)


def _effective(scope: Scope, state: TenantState) -> Scope:
    """The scope without the caller's own name where no document names it: it sees the same."""
    if scope.principals is None or state.users is None:
        return scope
    own = frozenset(name for name in scope.principals if name.startswith("user:"))
    return replace(scope, principals=scope.principals - (own - state.users))
