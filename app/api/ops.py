"""Endpoints for operation: health, readiness, metrics."""

from __future__ import annotations

from flask import Response, request
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from app.api import schemas
from app.api.bodies import services, write_json
from app.api.endpoint import ApiBlueprint, Endpoint
from app.errors import NotAuthenticated, SigningKeysUnavailable, StoreError
from app.gateway.roles import Role

blueprint = ApiBlueprint("ops", "operations")


@blueprint.declare(Endpoint("GET", "/healthz", answer=schemas.Health, role=None, audit=None))
def healthz() -> Response:
    """Report liveness."""
    return write_json(schemas.Health(status="ok"))


@blueprint.declare(Endpoint("GET", "/readyz", answer=schemas.Readiness, role=None, audit=None))
def readyz() -> Response:
    """Report readiness, or the problems. Callers with the role metrics get the number of passages, too."""
    counted, readiness = _counted_tenant(), services().readiness
    said = readiness.probed_report() if counted is None else readiness.report(counted)
    found = schemas.Readiness.model_validate(said)
    return write_json(found, 200 if found.ready else 503)


def _counted_tenant() -> str | None:
    """Return the tenant of a caller with the role metrics; probes have no key, and an invalid one changes nothing."""
    try:
        caller = services().identity.identify(
            request.headers.get("Authorization"), request.headers.get("Host", ""), request.headers.get("Origin")
        )
    except (NotAuthenticated, SigningKeysUnavailable, StoreError):
        return None
    return caller.scope.tenant if caller.has_role(Role.METRICS) else None


@blueprint.declare(Endpoint("GET", "/metrics", role=Role.METRICS, audit=None, counted=False))
def metrics() -> Response:
    """Return the metrics of all workers as Prometheus text."""
    registry = REGISTRY
    if services().settings.server.workers > 1:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
