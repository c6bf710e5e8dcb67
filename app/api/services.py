"""The parts of one process, opened once and shared by all requests; what the blueprints call, none of HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from app.access import Access, AccessChange
from app.cache.connection import RedisConnection
from app.cache.entries import EntryCodec
from app.cache.generation import IndexGeneration
from app.cache.responses import ResponseCache
from app.cache.scores import ScoreCache
from app.cache.single_flight import SingleFlight
from app.cache.vectors import VectorCache
from app.config import Settings
from app.deadline import Deadline, WriteDeadline
from app.embedding.encoder import Encoder, load_encoder
from app.errors import BraidError, DocumentRejected, FieldProblem, InvalidInput
from app.features import Features
from app.feedback.labels import LabelStore
from app.feedback.log import QueryLog
from app.gateway.admission import Admission
from app.gateway.flags import Flags
from app.gateway.identity import Identity
from app.generation.answer import Generator
from app.ingest.records import ready_document
from app.ingest.single import StoredDocument, change_readers, delete_document
from app.ingest.sweep import BackgroundSweep
from app.passage import Document
from app.search.cached_models import QueryVectors
from app.search.readiness import ReadinessGate, StoreState, require_writable
from app.search.rerankers import TextReranker, load_reranker
from app.search.service import SearchService
from app.serving.answers import AnswerCache
from app.serving.freshness import Freshness
from app.serving.near import NearAnswers
from app.serving.spool import SpooledFile
from app.serving.tasks import IngestOutcome, UploadedFile
from app.serving.writes import Writes
from app.store import documents, templates, tunings
from app.store.capabilities import RRF_ACROSS_SHARDS, Capabilities, default_variant, has, probe
from app.store.client import Cluster
from app.store.filters import Scope
from app.store.head_check import HeadCheck
from app.store.rendering import Rendered, render
from app.store.versions import tenant_state
from app.tuning import Tuning

_CHECK_TIMEOUT_S = 10.0
_FRESH_TIMEOUT_S = 1.0
"""For asking whether passages changed: a later answer is of no use, and silence for so long tells that nobody is there
(`store.client` counts from 0.7 s), however little time the requests have that wait for it."""
_PROBED_S = 1.0
"""How long what ``/readyz`` says is good for callers that nobody knows: they must not make work for the store."""
_LOOKS, _PAUSE_S = 3, 0.1
"""How often the cluster is compared before a difference counts, and the pause between."""


class Services:
    """Everything that requests use. Opening it needs the models, not the cluster: that may come later."""

    def __init__(
        self, settings: Settings, cluster: Cluster, encoder: Encoder, reranker: TextReranker | None = None
    ) -> None:
        self.settings = settings
        self.cluster = cluster
        self.encoder = encoder
        self.reranker = reranker
        # a request may have a readiness check and two legs under way at once
        self.executor = ThreadPoolExecutor(settings.threads * 3, thread_name_prefix="braid")
        self.gate = ReadinessGate(self._check, self.executor)
        self.redis = RedisConnection(settings)
        codec = EntryCodec(settings)
        self.heads = HeadCheck(cluster)
        entries, ttl_s = settings.embedding_cache_entries, settings.cache_ttl_s
        vectors = QueryVectors(encoder, reranker, VectorCache(self.redis, codec, entries=entries, ttl_s=ttl_s))
        self.search = SearchService(
            settings,
            cluster,
            encoder,
            self.gate,
            self.executor,
            reranker,
            vectors,
            ScoreCache(self.redis, codec, ttl_s),
            self.heads,
        )
        self.admission = Admission.of(settings)
        self.generator = Generator(settings, encoder)
        self.generation = IndexGeneration(self.redis)
        self.answers = self._answer_cache(codec, vectors)
        self.writes = Writes(settings, cluster, self._announce)
        self.identity = Identity(settings, cluster)
        self.flags = Flags(settings)
        self.query_log = QueryLog(settings, cluster)
        self.labels = LabelStore(settings, cluster, self.query_log)
        self._lock = threading.Lock()
        self._known: Capabilities | None = None
        self._shown: Rendered | None = None
        self.sweep = BackgroundSweep(cluster)
        self._probing = threading.Lock()
        self._probed: tuple[float, dict[str, Any]] = (float("-inf"), {})

    @classmethod
    def open(cls, settings: Settings) -> Services:
        """The services that `settings` describe.

        Raises:
            ConfigurationError: no cluster is named, a model can't be loaded, or the file of flags can't be used.
        """
        encoder = load_encoder(settings)
        return cls(settings, Cluster(settings), encoder, load_reranker(settings, encoder))

    def probed_readiness(self) -> dict[str, Any]:
        """As `readiness`, without a count; found out once a second at most, for all who ask."""
        with self._probing:
            if time.monotonic() - self._probed[0] >= _PROBED_S:
                found = self.readiness()
                self._probed = (time.monotonic(), found)
            return self._probed[1]

    def readiness(self, counted: str | None = None) -> dict[str, Any]:
        """What ``/readyz`` says; never raises. `counted`: the tenant whose passages are counted; None: no count."""
        problems: list[str] = []
        found: dict[str, Any] = {}
        passages = None
        read_only: list[str] = []
        try:
            state = self.gate.begin().result(_CHECK_TIMEOUT_S)
            problems += state.differences
            read_only += [f"read-only: {state.read_only}"] if state.read_only is not None else []
            capabilities = self._what_it_is()
            found = {
                "version": capabilities.version_text,
                "native_faiss": capabilities.faiss_native,
                "vector_variant": self._rendered(state.tuning).variant,
                "shards": state.shards,
                "tuning": state.tuning.version,
            }
            if not problems:
                # a store that can't count can't search either; whose passages are counted is nobody else's business
                count = documents.count(self.cluster, counted or self.settings.tenant)
                passages = count if counted is not None else None
        except BraidError as error:
            problems.append(error.detail)
        except TimeoutError:
            problems.append(f"OpenSearch did not answer within {_CHECK_TIMEOUT_S:.0f} s")
        warnings = [*read_only, *self.flags.warnings()]
        if not self.redis.configured:
            warnings.append("no Redis is named (BRAID_REDIS_URL): answers carry no index generation")
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

    def ready_document(self, fields: Mapping[str, Any], tenant: str) -> Document:
        """The document that the fields of ``POST /v1/documents`` describe. Raises InvalidInput."""
        try:
            return ready_document(fields, tenant=tenant, source_id="api")
        except DocumentRejected as error:
            raise InvalidInput(error.detail, problems=[FieldProblem(("body",), error.detail)]) from error

    def require_writable(self, deadline: Deadline) -> None:
        """Raise StoreNotReady, or StoreReadOnly unless the aliases have been moved since it was found."""
        left = min(_CHECK_TIMEOUT_S, deadline.remaining_s("readiness"))
        check = self.gate.begin()
        state = self.gate.state(check, left)
        require_writable(state if state.read_only is None else check.result(left))

    def ingest(
        self,
        source: Document | UploadedFile,
        scope: Scope,
        deadline: WriteDeadline,
        file: SpooledFile | None = None,
    ) -> IngestOutcome:
        """Store one document as `scope` may; searchable on return. Raises as `Writes.store`."""
        return self.writes.store(source, scope, deadline, file)

    def change_readers(
        self, scope: Scope, document_id: str, change: AccessChange, deadline: WriteDeadline
    ) -> StoredDocument:
        """Give a document other readers; in force on return.

        Raises:
            NotFound, Overtaken, StoreError.
            DeadlineExceeded: it may have been done.
        """
        self.require_writable(deadline)
        return change_readers(self.cluster.by(deadline), scope, document_id, change)

    def stored_document(self, scope: Scope, document_id: str) -> dict[str, Any]:
        """What ``GET /v1/documents/{id}`` shows. Raises NotFound."""
        state = self.gate.state(self.gate.begin(), _CHECK_TIMEOUT_S)
        get = documents.get_document if state.read_only is None else documents.get_headless_document
        head, passages = get(self.cluster, scope, document_id)
        first = passages[0]
        fields = ("document_id", "title", "source_id", "source_type", "uri", "timestamp", "ingested_at", "language")
        shown = ("id", "position", "page", "section_heading", "text", "token_count")
        return {
            **{name: first.get(name) for name in fields},
            **(head.access or Access()).fields(),
            "topic_tags": first.get("topic_tags") or [],
            "passages": [
                {**{name: passage.get(name) for name in shown}, "pages": passage.get("pages") or []}
                for passage in passages
            ],
        }

    def delete_document(self, scope: Scope, document_id: str, deadline: WriteDeadline) -> StoredDocument:
        """Delete a document, as far as the scope sees it. Raises as `change_readers`."""
        self.require_writable(deadline)
        return delete_document(self.cluster.by(deadline), scope, document_id)

    def close(self) -> None:
        """Let everything go; what is left of the query log is written first, for two seconds at most."""
        self.sweep.close()
        self.query_log.close()
        self.flags.close()
        self.writes.close()
        if self.reranker is not None:
            self.reranker.close()
        self.executor.shutdown(wait=False, cancel_futures=True)
        self.generator.close()
        self.redis.close()
        self.identity.close()
        self.cluster.close()

    def features(self, scope: Scope) -> Features:
        """What is switched on for this caller."""
        return self.flags.features(scope)

    def _answer_cache(self, codec: EntryCodec, vectors: QueryVectors) -> AnswerCache:
        settings = self.settings
        responses = ResponseCache(self.redis, codec, settings.response_cache_ttl_s)
        return AnswerCache(
            settings,
            self.generation,
            responses,
            SingleFlight(self.redis),
            Freshness(lambda tenant: tenant_state(self.cluster, tenant, _FRESH_TIMEOUT_S), self.executor),
            self.gate,
            models=lambda: (
                self.encoder.name,
                self.reranker.name if self.reranker is not None else None,
                self.generator.model,
            ),
            near=NearAnswers(responses, vectors, self.reranker, settings.near_cache_threshold),
            heads=self.heads,
        )

    def _announce(self, tenant: str, stored: StoredDocument | None) -> None:
        """Tell caches of a write that ended when its request had been answered."""
        if stored is None or stored.status != "unchanged" or stored.revoking:
            self.generation.advance(tenant, revoking=stored is None or stored.revoking)

    def _what_it_is(self) -> Capabilities:
        """Asked once a process: the version and the libraries of a running node do not change."""
        with self._lock:
            if self._known is None:
                self._known = probe(self.cluster)
            return self._known

    def _rendered(self, tuning: Tuning) -> Rendered:
        """What the cluster should hold; rendered anew when another tuning is in force."""
        if self._shown is None or self._shown.tuning != tuning:
            variant = self.settings.vector_variant or default_variant(self._what_it_is())
            self._shown = render(self.settings, variant, self.encoder.dimension, tuning)
        return self._shown

    def _check(self) -> StoreState:
        capabilities = self._what_it_is()
        for attempt in range(_LOOKS):
            tuning = tunings.active(self.cluster)
            drifts, live = templates.compare(self.cluster, self._rendered(tuning))
            if not drifts or attempt == _LOOKS - 1:
                break
            time.sleep(_PAUSE_S)  # a tuning that is being applied is not a difference
        return StoreState(
            differences=tuple(str(drift) for drift in drifts),
            shards=live.shards,
            native_rrf_across_shards=has(capabilities, RRF_ACROSS_SHARDS),
            tuning=tuning,
            read_only=templates.read_only(live, self._rendered(tuning)),
            identity=",".join(sorted(str(item["settings"]["index.uuid"]) for item in live.indexes.values())),
        )
