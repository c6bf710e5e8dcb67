"""Health, readiness, metrics."""

from __future__ import annotations

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from app.api import schemas
from app.api.bodies import services, write_json
from app.errors import NotAuthenticated, SigningKeysUnavailable, StoreError
from app.gateway.roles import Role

blueprint = Blueprint("ops", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Alive."""
    return write_json(schemas.Health(status="ok"))


@blueprint.get("/readyz")
def readyz() -> Response:
    """Ready to answer, or 503 with what is wrong; with the count of passages for who has the role metrics."""
    counted = _counted_tenant()
    said = services().probed_readiness() if counted is None else services().readiness(counted)
    found = schemas.Readiness.model_validate(said)
    return write_json(found, 200 if found.ready else 503)


def _counted_tenant() -> str | None:
    """The tenant of a caller who may see its figures; probes have no key, and a wrong one makes nothing unready."""
    try:
        caller = services().identity.identify(
            request.headers.get("Authorization"), request.headers.get("Host", ""), request.headers.get("Origin")
        )
    except (NotAuthenticated, SigningKeysUnavailable, StoreError):
        return None
    return caller.scope.tenant if caller.may(Role.METRICS) else None


@blueprint.get("/metrics")
def metrics() -> Response:
    """Prometheus text; of all workers when there are several."""
    registry = REGISTRY
    if services().settings.workers > 1:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
