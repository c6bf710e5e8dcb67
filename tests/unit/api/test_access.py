"""Every route of the application asks for its role; only the few that carry nobody's data are open."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api.factory import create_app
from app.api.openapi import OPERATIONS, document
from app.api.services import Services
from app.config import load_settings
from app.gateway.identity import Identity
from app.gateway.keys import KeyRing
from app.gateway.roles import ENDPOINT_ROLES, OPEN_ENDPOINTS, Role
from tests.unit.gateway.keystore import SECRET, KeyStore


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


def test_each_endpoint_is_in_one_of_the_two_tables() -> None:
    known = {endpoint for endpoint, _, _ in routes(make())}
    assert known == set(ENDPOINT_ROLES) | OPEN_ENDPOINTS
    assert not set(ENDPOINT_ROLES) & OPEN_ENDPOINTS


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
    _, key = KeyRing(load_settings(keys_secret=SECRET), store).create(name="n", tenant="t", roles=[role.value])
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
    _, key = KeyRing(load_settings(keys_secret=SECRET), store).create(name="n", tenant="t", roles=["feedback"])
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
    paths = document()["paths"]
    for operation in OPERATIONS:
        said = set(paths[operation.path][operation.method]["responses"])
        assert said >= ({"400"} if operation.open else {"400", "401", "403", "429", "503"}), operation.name
