"""Wiring of one process: its parts, opened once and shared by all requests, and the use cases made of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from app.api.search_rendering import BodyRenderer
from app.cache.codec import EntryCodec
from app.cache.connection import RedisConnection
from app.cache.generation import IndexGeneration
from app.cache.response_cache import ResponseCache
from app.cache.scores import ScoreCache
from app.cache.single_flight import SingleFlight
from app.cache.vectors import VectorCache
from app.calibration import calibration_for
from app.config import Settings
from app.embedding.text_encoder import TextEncoder, load_text_encoder
from app.feedback.labels import LabelStore
from app.feedback.log import QueryLog
from app.gateway.admission import Admission
from app.gateway.flags import Flags
from app.gateway.identity import Identity
from app.gateway.shares import Shares
from app.generation.answer import Generator
from app.ingest.change import StoredDocument
from app.ingest.sweep import BackgroundSweep
from app.search.cached_models import QueryVectors
from app.search.readiness_gate import ReadinessGate
from app.search.rerankers import load_reranker
from app.search.reranking import Reranker
from app.search.service import SearchService
from app.serving.answer import AnswerUseCase
from app.serving.answer_cache import AnswerCache
from app.serving.browsing import BrowseUseCase
from app.serving.documents import DocumentService
from app.serving.freshness import Freshness
from app.serving.models import EmbedUseCase, RerankUseCase
from app.serving.near import NearAnswers
from app.serving.readiness import Readiness, StoreCheck
from app.serving.reads import ReadLog
from app.serving.search import SearchUseCase
from app.serving.writes import Writes
from app.store.client import Cluster
from app.store.head_check import HeadCheck
from app.store.versions import tenant_state

_FRESH_TIMEOUT_S = 1.0
"""Seconds to wait for the state of passages: a later answer is useless, and silence for so long means that the cluster
is unavailable (`store.client` counts from 0.7 s), however little time the waiting requests have."""


class Services:
    """Everything that requests use. Opening it needs the models, but not the cluster, which may start later."""

    def __init__(
        self, settings: Settings, cluster: Cluster, encoder: TextEncoder, reranker: Reranker | None = None
    ) -> None:
        self.settings = settings
        self.cluster = cluster
        self.encoder = encoder
        self.reranker = reranker
        # a request may have a readiness check and two legs running at once
        self.executor = ThreadPoolExecutor(settings.server.threads * 3, thread_name_prefix="braid")
        self.redis = RedisConnection(settings.redis)
        self.identity = Identity(settings, cluster)
        self.flags = Flags(settings.flags)
        self.admission = Admission.of(settings.limits)
        self.generation = IndexGeneration(self.redis)
        self.heads = HeadCheck(cluster)
        self.calibration = calibration_for(settings.embedding, encoder.name)
        self.generator = Generator(settings, encoder, self.calibration)
        self.query_log = QueryLog(settings.query_log, cluster)
        self.labels = LabelStore(settings.query_log, cluster, self.query_log)
        self.sweep = BackgroundSweep(cluster)

        check = StoreCheck(settings, cluster, encoder)
        self.gate = ReadinessGate(check.run, self.executor)
        self.readiness = Readiness(
            settings.access.tenant,
            cluster,
            check,
            self.gate,
            self.redis,
            self.flags,
            encoder,
            self.calibration,
            reranker,
            self.generator,
        )

        codec = EntryCodec(settings.access)
        entries, ttl_s = settings.cache.embedding_cache_entries, settings.cache.cache_ttl_s
        vectors = QueryVectors(encoder, reranker, VectorCache(self.redis, codec, entries=entries, ttl_s=ttl_s))
        scores = ScoreCache(self.redis, codec, ttl_s)
        self.search_service = SearchService(
            settings, cluster, encoder, self.gate, self.executor, reranker, vectors, scores, self.heads
        )
        self.answer_cache = self._answer_cache(codec, vectors)
        log, render = ReadLog(settings.query_log, self.query_log), BodyRenderer(settings.search.rrf_rank_constant)
        self.search = SearchUseCase(self.answer_cache, self.admission, self.search_service, log, render.search)
        self.answer = AnswerUseCase(
            settings.search.context_size,
            settings.llm.timeout_s,
            cluster,
            self.heads,
            self.answer_cache,
            self.admission,
            Shares(settings.llm.concurrency, work="llm", what="answers (BRAID_LLM_CONCURRENCY)"),
            self.search_service,
            self.generator,
            log,
            render,
        )
        self.browse = BrowseUseCase(cluster, self.heads, self.gate, self.admission)
        self.rerank = RerankUseCase(self.admission, reranker, settings.search.timeout_ms)
        self.embed = EmbedUseCase(self.admission, encoder, settings.search.timeout_ms)

        self.writes = Writes(settings, cluster, self._announce)
        self.jobs = self.writes.jobs
        self.documents = DocumentService(cluster, self.gate, self.writes, self._announce)

    @classmethod
    def open(cls, settings: Settings) -> Services:
        """Open the services described by `settings`.

        Raises:
            ConfigurationError: no cluster is configured, a model can't be loaded, or the flag file is unusable.
        """
        encoder = load_text_encoder(settings)
        cluster = Cluster(settings.opensearch, connections=settings.server.threads * 3)
        return cls(settings, cluster, encoder, load_reranker(settings, encoder))

    def close(self) -> None:
        """Close everything; the rest of the query log is written first, within two seconds."""
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

    def _answer_cache(self, codec: EntryCodec, vectors: QueryVectors) -> AnswerCache:
        settings = self.settings
        responses = ResponseCache(self.redis, codec, settings.cache.response_cache_ttl_s)
        threshold = None
        if self.calibration is not None:
            own = settings.cache.near_cache_threshold
            threshold = self.calibration.near_min_cosine if own is None else own
        return AnswerCache(
            settings,
            self.generation,
            responses,
            SingleFlight(self.redis),
            Freshness(lambda tenant: tenant_state(self.cluster, tenant, _FRESH_TIMEOUT_S), self.executor),
            self.gate,
            models=lambda: (
                self.encoder.name,
                self.calibration.digest if self.calibration is not None else None,
                self.reranker.name if self.reranker is not None else None,
                self.generator.model,
            ),
            near=NearAnswers(responses, vectors, self.reranker, threshold),
            heads=self.heads,
        )

    def _announce(self, tenant: str, stored: StoredDocument | None) -> None:
        """Notify caches of a write; `stored` is None if it may be incomplete."""
        if stored is None or stored.status != "unchanged" or stored.revoking:
            self.generation.advance(tenant, revoking=stored is None or stored.revoking)
