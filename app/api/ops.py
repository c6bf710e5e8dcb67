"""Health, readiness, metrics."""

from __future__ import annotations

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from app.api import schemas
from app.api.bodies import services, write_json

blueprint = Blueprint("ops", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Alive."""
    return write_json(schemas.Health(status="ok"))


@blueprint.get("/readyz")
def readyz() -> Response:
    """Ready to answer, or 503 with what is wrong."""
    found = schemas.Readiness.model_validate(services().readiness())
    return write_json(found, 200 if found.ready else 503)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Prometheus text; of all workers when there are several."""
    registry = REGISTRY
    if services().settings.workers > 1:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
