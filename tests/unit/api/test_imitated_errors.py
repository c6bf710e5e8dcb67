"""Errors of calls that imitate another API have its fields."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from app.gateway.rate_limits import duration
from app.imitation import error_fields
from tests.unit.api.test_access import make

KEY = "s3cret"
ALLOWED = {"Authorization": f"Bearer {KEY}"}


def test_each_api_has_its_own_fields() -> None:
    assert error_fields((), 422, "invalid-input", "no") == {}
    assert error_fields(("cohere",), 422, "invalid-input", "no") == {"message": "no"}
    loc = ("body", "messages", 0, "content")
    error = error_fields(("openai",), 422, "invalid-input", "no", loc)["error"]
    assert error == {
        "message": "no",
        "type": "invalid_request_error",
        "param": "messages[0].content",
        "code": "invalid-input",
    }


@pytest.mark.parametrize(("seconds", "text"), [(1, "1s"), (60, "1m0s"), (3600, "1h0m0s"), (3725, "1h2m5s")])
def test_times_are_written_as_openai_writes_them(seconds: int, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture
def client() -> FlaskClient:
    return make(api_key=KEY, max_body_bytes=1000, rate_limit_key="50/hour").test_client()


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "of_type", "param"),
    [
        ("POST", "/v1/embeddings", {"headers": {}, "json": {}}, 401, "authentication_error", None),
        ("POST", "/v1/embeddings", {"json": {}}, 422, "invalid_request_error", "input"),
        ("POST", "/v1/embeddings", {"data": "{", "content_type": "application/json"}, 400, "invalid_request_error", ""),
        ("POST", "/v1/embeddings", {"data": "{"}, 415, "invalid_request_error", None),
        ("POST", "/v1/embeddings", {"json": {"input": "x" * 2000}}, 413, "invalid_request_error", None),
        ("GET", "/v1/embeddings", {}, 405, "invalid_request_error", None),
        ("POST", "/v1/completions", {"json": {}}, 404, "invalid_request_error", None),
        ("POST", "/v1/completions", {"headers": {}, "json": {}}, 401, "authentication_error", None),
    ],
)
def test_errors_have_openais_fields(
    client: FlaskClient, method: str, path: str, sent: dict[str, Any], status: int, of_type: str, param: str | None
) -> None:
    answer = client.open(path, method=method, **{"headers": ALLOWED, **sent})
    assert answer.status_code == status
    body = answer.json
    assert body is not None
    assert (body["status"], body["error"]["message"]) == (status, body["detail"])
    assert body["error"]["type"] == of_type
    assert body["error"]["param"] == (param or None)
    assert body["type"] == f"urn:braid:problem:{body['error']['code']}"


@pytest.mark.parametrize(
    ("path", "sent", "status"),
    [
        ("/v1/rerank", {"json": {}}, 422),
        ("/v1/rerank", {"headers": {}, "json": {}}, 401),
        ("/v1/rerank", {"data": "{}"}, 415),
        ("/v2/nothing", {"json": {}}, 404),
    ],
)
def test_errors_have_coheres_message(client: FlaskClient, path: str, sent: dict[str, Any], status: int) -> None:
    answer = client.post(path, **{"headers": ALLOWED, **sent})
    assert answer.status_code == status
    assert answer.json is not None
    assert answer.json["message"] == answer.json["detail"]


def test_other_calls_have_the_problem_document_alone(client: FlaskClient) -> None:
    body = client.post("/v1/search", headers=ALLOWED, json={}).json
    assert body is not None
    assert not {"error", "message"} & set(body)


def test_a_limit_is_told_in_both_forms() -> None:
    client = make(api_key=KEY, rate_limit_key="1/hour").test_client()
    for status in (422, 429):
        answer = client.post("/v1/embeddings", headers=ALLOWED, json={})
        assert answer.status_code == status
        assert answer.headers["x-ratelimit-limit-requests"] == answer.headers["RateLimit-Limit"] == "1"
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert answer.headers["x-ratelimit-reset-requests"] in {"1h0m0s", "1h0m1s", "59m59s"}
    assert answer.json is not None
    assert answer.json["error"]["type"] == "rate_limit_error"
    assert answer.json["error"]["code"] == "rate-limited"
    assert int(answer.headers["Retry-After"]) > 3000
