"""Every route of the application asks for its role; only the few that carry nobody's data are open."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api.endpoint import Endpoint
from app.api.factory import ENDPOINTS, create_app
from app.api.openapi import document, operation_id
from app.api.services import Services
from app.config import load_settings
from app.gateway.identity import Identity
from app.gateway.keys import KeyRing
from app.gateway.roles import Role
from tests.unit.gateway.keystore import SECRET, KeyStore

ENDPOINT_ROLES = {endpoint.name: endpoint.role for endpoint in ENDPOINTS if endpoint.role is not None}
OPEN_ENDPOINTS = {endpoint.name for endpoint in ENDPOINTS if endpoint.role is None}


def make(store: KeyStore | None = None, **more: Any) -> Flask:
    settings = load_settings(audit_log="off", **more)
    store = store or KeyStore()
    parts = SimpleNamespace(settings=settings, identity=Identity(settings, store))
    return create_app(cast(Services, parts))


def routes(app: Flask) -> list[tuple[str, str, str]]:
    """Endpoint, method and an address of each route, but for what Flask answers itself."""
    return [
        (rule.endpoint, method, rule.rule.replace("<document_id:document_id>", "d").replace("<path:name>", "x"))
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"OPTIONS"})
    ]


def call(client: FlaskClient, method: str, path: str, key: str | None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return client.open(path, method=method, headers=headers, json={} if method == "POST" else None).status_code


def test_every_route_was_declared_with_a_role_or_as_open() -> None:
    known = {endpoint for endpoint, _, _ in routes(make())}
    assert known == set(ENDPOINT_ROLES) | OPEN_ENDPOINTS
    assert not set(ENDPOINT_ROLES) & OPEN_ENDPOINTS
    assert len(ENDPOINTS) == len(known)
    expected = {"ops.healthz", "ops.readyz", "page.index", "page.static_file", "openapi.docs", "openapi.serve_document"}
    assert expected == OPEN_ENDPOINTS


def test_every_route_answers_the_method_that_was_declared_for_it() -> None:
    declared = {endpoint.name: endpoint.method for endpoint in ENDPOINTS}
    for endpoint, method, path in routes(make()):
        assert method in {declared[endpoint], "HEAD" if declared[endpoint] == "GET" else None}, path


@pytest.mark.parametrize("missing", ["role", "audit"])
def test_an_endpoint_without_a_decision_cannot_be_declared(missing: str) -> None:
    decisions: dict[str, Any] = {"role": Role.SEARCH, "audit": "search"}
    del decisions[missing]
    with pytest.raises(TypeError, match=missing):
        Endpoint("GET", "/v1/new", **decisions)


def test_a_route_that_was_not_declared_is_the_operators() -> None:
    store = KeyStore()
    _, key = KeyRing(load_settings(keys_secret=SECRET).access, store).create(name="n", tenant="t", roles=list(Role))
    app = make(store, keys_secret=SECRET, api_key="s3cret")
    app.add_url_rule("/v1/new", "new.thing", lambda: "found")
    assert call(app.test_client(), "GET", "/v1/new", None) == 401
    assert call(app.test_client(), "GET", "/v1/new", key) == 403
    assert call(app.test_client(), "GET", "/v1/new", "s3cret") == 200


def test_without_a_credential_only_the_open_ones_answer() -> None:
    client = make(api_key="s3cret").test_client()
    asked = 0
    for endpoint, method, path in routes(make()):
        if endpoint in ENDPOINT_ROLES:
            asked += 1
            assert call(client, method, path, None) == 401, path
            assert call(client, method, path, "wrong") == 401, path
    assert asked >= len(ENDPOINT_ROLES)
    assert call(client, "GET", "/v1/nothing", None) == 401
    assert call(client, "GET", "/v1/nothing", "s3cret") == 404
    assert call(client, "GET", "/v1/search", "s3cret") == 405
    assert call(client, "GET", "/healthz", None) == 200


@pytest.mark.parametrize("role", list(Role))
def test_a_key_reaches_what_its_role_is_for_and_nothing_else(role: Role) -> None:
    store = KeyStore()
    _, key = KeyRing(load_settings(keys_secret=SECRET).access, store).create(name="n", tenant="t", roles=[role.value])
    app = make(store, keys_secret=SECRET)
    app.config["PROPAGATE_EXCEPTIONS"] = False  # behind the door there is nothing here: it may well fail
    client = app.test_client()
    for endpoint, method, path in routes(app):
        if endpoint in OPEN_ENDPOINTS:
            continue
        status = call(client, method, path, key)
        if role in {ENDPOINT_ROLES[endpoint], Role.ADMIN}:
            assert status not in {401, 403}, (endpoint, method)
        else:
            assert status == 403, (endpoint, method)


def test_a_refusal_says_the_role_and_not_the_key() -> None:
    store = KeyStore()
    _, key = KeyRing(load_settings(keys_secret=SECRET).access, store).create(name="n", tenant="t", roles=["feedback"])
    client = make(store, keys_secret=SECRET).test_client()
    answer = client.post("/v1/search", json={}, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 403
    assert answer.json is not None
    assert answer.json["type"] == "urn:braid:problem:forbidden"
    assert "role search" in answer.json["detail"]
    assert key not in answer.text
    answer = client.post("/v1/search", json={}, headers={"Authorization": f"Bearer {key}x"})
    assert (answer.status_code, key in answer.text) == (401, False)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_several_headers_are_refused() -> None:
    client = make(api_key="s3cret").test_client()
    for other in ("Bearer s3cret", "Bearer other", "s3cret"):
        headers = [("Authorization", "Bearer s3cret"), ("Authorization", other)]
        assert client.get("/v1/models", headers=headers).status_code == 401
        assert client.get("/v1/models", headers=headers[::-1]).status_code == 401


@pytest.mark.parametrize("path", ["/v1/models", "/v1/search", "/healthz", "/", "/v1/nothing", "/openapi.json"])
@pytest.mark.parametrize("query", ["key=s3cret", "Api_Key=x", "access_token=x", "a=1&token=%20", "%6bey=1"])
def test_keys_in_addresses_are_refused_everywhere(path: str, query: str) -> None:
    answer = make(api_key="s3cret").test_client().get(f"{path}?{query}", headers={"Authorization": "Bearer s3cret"})
    assert answer.status_code == 400
    assert answer.json is not None
    assert "leaked" in answer.json["detail"]
    assert "s3cret" not in answer.text


def test_the_description_names_what_the_door_says() -> None:
    operations = {said["operationId"]: said for path in document(ENDPOINTS)["paths"].values() for said in path.values()}
    described = [endpoint for endpoint in ENDPOINTS if endpoint.tag is not None]
    assert set(operations) == {operation_id(endpoint) for endpoint in described}
    for endpoint in described:
        said = set(operations[operation_id(endpoint)]["responses"])
        assert said >= ({"400"} if endpoint.role is None else {"400", "401", "403", "429", "503"}), endpoint.name


def test_a_line_of_the_access_log_names_request_tenant_and_caller(caplog: pytest.LogCaptureFixture) -> None:
    client = make(api_key="s3cret").test_client()
    with caplog.at_level("INFO", logger="braid.access"):
        for headers in ({"Authorization": "Bearer s3cret"}, {}):
            client.get("/v1/jobs/x", headers={"X-Request-ID": "r-1", **headers}).close()
    known, unknown = [record.getMessage() for record in caplog.records if record.name == "braid.access"]
    assert known.endswith("request=r-1 tenant=default caller=operator")
    assert unknown.startswith("GET /v1/jobs/<job_id> 401 ")
    assert unknown.endswith("request=r-1 tenant=- caller=-")
    assert "s3cret" not in caplog.text
