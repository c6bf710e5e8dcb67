"""Readiness: whether the cluster belongs to this service, and the report of ``/readyz``."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from app.cache.connection import RedisConnection
from app.calibration import Calibration
from app.config import Settings
from app.embedding.text_encoder import TextEncoder
from app.errors import BraidError
from app.gateway.flags import Flags
from app.generation.answer import Generator
from app.search.readiness_gate import ReadinessGate, StoreState, wait_for
from app.search.reranking import Reranker
from app.serving.cluster_watch import ClusterWatch
from app.serving.reference_check import ReferenceCheck
from app.store import documents, templates, tunings
from app.store.capabilities import RRF_ACROSS_SHARDS, Capabilities, default_variant, has_feature
from app.store.client import Cluster
from app.store.rendering import RenderedResources, render
from app.tuning import Tuning

CHECK_TIMEOUT_S = 10.0
"""Timeout of one check of the cluster."""
_PROBED_S = 1.0
"""Seconds that a report is valid for anonymous callers, who must not cause work for the store."""
_REUSED_S = 2.0
"""Seconds for which a comparison without a difference holds while the cluster's state is the same. It costs as much
processor time as a search, in the cluster and here; a trained model and scores may change without the state."""
_COMPARISONS, _PAUSE_S = 3, 0.1
"""Number of comparisons before a difference counts, and the pause between them."""


@dataclass(slots=True)
class StoreCheck:
    """Compares the cluster with its expected content for these settings. Thread-safe."""

    settings: Settings
    cluster: Cluster
    encoder: TextEncoder
    _expected: RenderedResources | None = None
    _compared: tuple[str, float, StoreState] | None = None
    """The last comparison without a difference: id of the cluster's state, time, result."""
    _watch: ClusterWatch = field(init=False)
    reference: ReferenceCheck = field(init=False)

    def __post_init__(self) -> None:
        self._watch = ClusterWatch(self.cluster)
        self.reference = ReferenceCheck(self.cluster, self.encoder)

    def capabilities(self) -> Capabilities:
        """Return the cluster's capabilities, at most half a minute old. Raises as `store.capabilities.probe`."""
        return self._watch.capabilities()

    def expected(self, tuning: Tuning) -> RenderedResources:
        """Return the expected content of the cluster; rendered again when another tuning is active."""
        capabilities = self.capabilities()
        if self._expected is None or (self._expected.tuning, self._expected.version) != (tuning, capabilities.version):
            variant = self.settings.index.vector_variant or default_variant(capabilities)
            self._expected = render(
                self.settings, variant, self.encoder.dimension, tuning, version=capabilities.version
            )
        return self._expected

    def run(self) -> StoreState:
        """Return the comparison of now, or a recent one of the same state of the cluster. Raises StoreError."""
        state_id = templates.state_id(self.cluster)  # read first: what changes meanwhile is compared next time
        last = self._compared
        if last is not None and last[0] == state_id and time.monotonic() - last[1] < _REUSED_S:
            return last[2]
        found = self._compare()
        self._compared = None if found.differences else (state_id, time.monotonic(), found)
        return found

    def _compare(self) -> StoreState:
        refusal = self.reference.refusal()  # first, since the kept vectors tell the dimension
        for attempt in range(_COMPARISONS):
            tuning = tunings.active(self.cluster)
            drifts, live = templates.compare(self.cluster, self.expected(tuning))
            if not drifts or attempt == _COMPARISONS - 1:
                break
            time.sleep(_PAUSE_S)  # a tuning that is being applied is not a difference
        self._watch.look(live)
        return StoreState(
            differences=tuple(str(drift) for drift in drifts),
            shards=live.shards,
            native_rrf_across_shards=has_feature(self.capabilities(), RRF_ACROSS_SHARDS),
            tuning=tuning,
            read_only=templates.read_only(live, self.expected(tuning)),
            other_vectors=refusal,
            other_languages=templates.other_languages(live, self.expected(tuning)),
            text_fields=templates.text_fields(live, self.expected(tuning)),
            identity=",".join(sorted(str(item["settings"]["index.uuid"]) for item in live.indexes.values())),
            warnings=self._watch.warnings,
            lexical_factor=self._watch.lexical_factor,
        )


@dataclass(slots=True)
class Readiness:
    """Reports whether the service can answer. Thread-safe."""

    tenant: str
    """Tenant whose passages are counted to check the store when no count is reported."""
    cluster: Cluster
    check: StoreCheck
    gate: ReadinessGate
    redis: RedisConnection
    flags: Flags
    encoder: TextEncoder
    calibration: Calibration | None
    """The encoder's."""
    reranker: Reranker | None
    generator: Generator
    _probing: threading.Lock = field(default_factory=threading.Lock)
    _probed: tuple[float, dict[str, Any]] = (float("-inf"), {})

    def probed_report(self) -> dict[str, Any]:
        """Return a report without a count, computed at most once per second for all callers."""
        with self._probing:
            if time.monotonic() - self._probed[0] >= _PROBED_S:
                found = self.report()
                self._probed = (time.monotonic(), found)
            return self._probed[1]

    def report(self, counted: str | None = None) -> dict[str, Any]:
        """Return the body of ``/readyz``; never raises.

        Args:
            counted: tenant whose number of passages is reported; None reports no number.
        """
        problems: list[str] = []
        found: dict[str, Any] = {}
        passages = None
        warnings: list[str] = []
        try:
            state = wait_for(self.gate.begin(), CHECK_TIMEOUT_S)
            problems += state.differences
            warnings += [f"read-only: {reason}" for reason in (state.read_only, state.other_vectors) if reason]
            warnings += [f"languages: {state.other_languages}"] if state.other_languages is not None else []
            warnings += state.warnings
            capabilities = self.check.capabilities()
            found = {
                "version": capabilities.version_text,
                "native_faiss": capabilities.faiss_native,
                "vector_variant": self.check.expected(state.tuning).variant,
                "shards": state.shards,
                "tuning": state.tuning.version,
            }
            if not problems:
                # a store that can't count can't search either; the count is only for the tenant's own callers
                count = documents.count(self.cluster, counted or self.tenant)
                passages = count if counted is not None else None
        except BraidError as error:
            problems.append(error.detail)
        if self.calibration is None:
            warnings.append(
                f"the embedding model {self.encoder.name} has no calibration: no question is refused as off topic, "
                f"near-identical queries are searched anew, and it brings no learned weight and no late interaction. "
                f"Remedy: `braid calibrate`"
            )
        warnings += self.check.reference.warnings()
        warnings += self.flags.warnings()
        if not self.redis.configured:
            warnings.append("no Redis is configured (BRAID_REDIS_URL): answers carry no index generation")
        elif not self.redis.alive():
            warnings.append("Redis does not answer: answers carry no index generation")
        return {
            "ready": not problems,
            "problems": problems,
            "warnings": warnings,
            "opensearch": found,
            "embedding_model": self.encoder.name,
            "reranker": self.reranker.name if self.reranker is not None else None,
            "generation": self.generator.model,
            "passages": passages,
        }
