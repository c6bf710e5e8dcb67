"""The HTTP application: `/v1/rerank` compatible with Cohere and Jina, `/rerank` with text-embeddings-inference."""

from __future__ import annotations

import hmac
import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from flask import Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from pydantic import BaseModel, ValidationError

from reranker import problems, telemetry
from reranker.config import ServerSettings
from reranker.cross_encoder import CrossEncoder, ScoringResult
from reranker.documents import UnrankableDocument, as_object, ranked_texts
from reranker.problems import InvalidInput, NotAuthenticated, UnsupportedMedia
from reranker.runtime.loopback import is_loopback
from reranker.scheduler import MicroBatcher
from reranker.schemas import RerankRequest, TeiRequest

_Body = TypeVar("_Body", bound=BaseModel)
_OPEN = frozenset({"healthz", "readyz"})
"""Endpoints that need no key."""
_LONGEST = 10
"""Largest timeout of a request, as a multiple of the default timeout."""


def create_app(settings: ServerSettings, model: CrossEncoder, batcher: MicroBatcher) -> Flask:
    """Create the WSGI application around `batcher`, which runs `model`."""
    app = Flask("reranker", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.extensions["reranker"] = batcher
    problems.install(app)

    @app.before_request
    def _enter() -> None:
        g.started = time.perf_counter()
        if request.endpoint not in _OPEN:
            _identify(settings)

    @app.after_request
    def _leave(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        seconds = time.perf_counter() - g.started
        route = request.url_rule.rule if request.url_rule else "unknown"
        telemetry.REQUEST.labels(route, str(response.status_code)).observe(seconds)
        scored: ScoringResult | None = g.get("scored")
        if scored is not None:
            _write_timings(response, scored, seconds * 1000)
        return response

    _add_rerank(app, settings, model, batcher)
    _add_operations(app, settings, model, batcher)
    return app


def _add_rerank(app: Flask, settings: ServerSettings, model: CrossEncoder, batcher: MicroBatcher) -> None:
    def score(query: str, documents: Sequence[str], timeout_ms: int | None, **how: Any) -> ScoringResult:
        if len(documents) > settings.max_documents:
            raise InvalidInput(
                f"{len(documents)} documents are more than the limit of {settings.max_documents} "
                f"(BRAID_RERANKER_MAX_DOCUMENTS): send fewer, or several requests"
            )
        most = settings.timeout_ms * _LONGEST
        if timeout_ms is not None and timeout_ms > most:
            raise InvalidInput(f"timeout_ms: {timeout_ms} is over the limit of {most}: lower it")
        scored = batcher.score(query, documents, timeout_s=(timeout_ms or settings.timeout_ms) / 1000, **how)
        g.scored = scored
        return scored

    @app.post("/v1/rerank")
    @app.post("/v2/rerank")
    def rerank() -> Response:
        """Rerank in Cohere's and Jina's form."""
        body = _read(RerankRequest)
        if body.top_n is not None and body.top_n > settings.max_documents:
            raise InvalidInput(
                f"top_n: {body.top_n} is more than the limit of {settings.max_documents} documents per request: "
                f"omit it to get all"
            )
        try:
            texts = ranked_texts(body.documents, body.rank_fields)
        except UnrankableDocument as error:
            raise InvalidInput(f"documents.{'.'.join(map(str, error.place))}: {error.detail}") from error
        scored = score(body.query, texts, body.timeout_ms, max_document_tokens=body.max_tokens_per_doc)
        warnings = [f"the field {name!r} is ignored" for name in body.unused]
        if body.top_n is not None and body.top_n > len(texts):
            warnings.append(f"top_n {body.top_n} is more than the {len(texts)} documents: all are returned")
        probabilities = model.settings.probability(scored.logits)
        results: list[dict[str, Any]] = []
        for index in _best_first(scored, body.top_n):
            result: dict[str, Any] = {"index": index, "relevance_score": float(probabilities[index])}
            if body.return_documents:
                result["document"] = as_object(body.documents[index])
            results.append(result)
        return _json(
            {
                "id": str(uuid.uuid4()),
                "model": model.name,
                "results": results,
                "usage": {"total_tokens": scored.tokens},
                "meta": {
                    "api_version": {"version": request.path[2:3]},
                    "tokens": {"input_tokens": scored.tokens},
                    "warnings": warnings,
                },
                "truncated": scored.truncated,
                "query_truncated": scored.query_truncated,
            }
        )

    @app.post("/rerank")
    def rerank_tei() -> Response:
        """Rerank in text-embeddings-inference's form."""
        body = _read(TeiRequest)
        scored = score(body.query, body.texts, body.timeout_ms, truncate=body.truncate is not False)
        values = scored.logits if body.raw_scores else model.settings.probability(scored.logits)
        results: list[dict[str, Any]] = []
        for index in _best_first(scored, None):
            result: dict[str, Any] = {"index": index, "score": float(values[index])}
            if body.return_text:
                result["text"] = body.texts[index]
            results.append(result)
        return _json(results)


def _add_operations(app: Flask, settings: ServerSettings, model: CrossEncoder, batcher: MicroBatcher) -> None:
    @app.get("/info")
    def info() -> Response:
        """Describe the model and the limits."""
        return _json(
            {
                "model": model.name,
                "max_tokens": model.max_tokens,
                "precision": model.settings.precision,
                "provider": model.provider,
                "calibration": model.settings.calibration.method if model.settings.calibration else None,
                "weight": model.settings.weight,
                "bound": asdict(model.settings.bound) if model.settings.bound else None,
                "batch_tokens": model.batch_tokens,
                "max_documents": settings.max_documents,
                "max_queue_pairs": settings.max_queue_pairs,
                "timeout_ms": settings.timeout_ms,
            }
        )

    @app.get("/healthz")
    def healthz() -> Response:
        """Report liveness: 503 once the thread that runs the model has ended, so that a supervisor
        restarts the server."""
        return _json({"status": "ok"}) if batcher.alive else _json({"status": "the scheduler has stopped"}, 503)

    @app.get("/readyz")
    def readyz() -> Response:
        """Report readiness: 503 while the queue is full."""
        pending = batcher.pending_pairs
        ready = batcher.alive and pending < settings.max_queue_pairs
        body = {"ready": ready, "pending_pairs": pending, "tokens_per_second": round(batcher.tokens_per_second)}
        return _json(body, 200 if ready else 503)

    @app.get("/metrics")
    def metrics() -> Response:
        """Return the metrics as Prometheus text."""
        return Response(generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)


def _read(kind: type[_Body]) -> _Body:
    if request.mimetype != "application/json":
        raise UnsupportedMedia(
            f"Content-Type {request.mimetype!r} is not supported: send JSON as `Content-Type: application/json`"
        )
    try:
        return kind.model_validate_json(request.get_data(cache=False))
    except ValidationError as error:
        raise problems.from_validation(error) from error


def _json(body: object, status: int = 200) -> Response:
    return Response(json.dumps(body, ensure_ascii=False), status=status, content_type="application/json")


def _best_first(scored: ScoringResult, count: int | None) -> list[int]:
    """Return indices by descending logit; equal ones in the order of the request."""
    order: list[int] = np.argsort(-scored.logits, kind="stable")[:count].tolist()
    return order


def _write_timings(response: Response, scored: ScoringResult, total_ms: float) -> None:
    """Set text-embeddings-inference's timing headers (whole milliseconds) and a more precise Server-Timing."""
    parts = {
        "queue": scored.queue_ms,
        "tokenization": scored.tokenize_ms,
        "inference": scored.compute_ms,
        "total": total_ms,
    }
    for name, value in parts.items():
        response.headers[f"x-{name}-time"] = str(round(value))
    response.headers["x-compute-tokens"] = str(scored.tokens)
    response.headers["x-truncated"] = str(scored.truncated + scored.query_truncated)
    response.headers["Server-Timing"] = ", ".join(f"{name};dur={value:.2f}" for name, value in parts.items())


def _identify(settings: ServerSettings) -> None:
    """Raise NotAuthenticated for a missing or wrong key; without a key, for what a page of another site could send."""
    if settings.key is None:
        host = request.headers.get("Host", "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if not is_loopback(name):
            raise NotAuthenticated(
                f"host {host!r} is not a loopback name; without BRAID_RERANKER_KEY only this machine has access"
            )
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise NotAuthenticated(
                f"origin {origin!r} is not this service; without BRAID_RERANKER_KEY it has no access"
            )
        return
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    expected = settings.key.get_secret_value()
    if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), expected.encode()):
        raise NotAuthenticated("send the reranker's key as `Authorization: Bearer <key>`")
