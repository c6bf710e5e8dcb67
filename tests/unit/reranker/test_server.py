from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import cohere
import pytest
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from reranker import scheduler
from reranker.calibration import Platt
from reranker.config import ServerSettings
from reranker.cross_encoder import CrossEncoder
from reranker.errors import DeadlinePassed, InferenceError, Overloaded
from reranker.model_folder import ModelSettings
from reranker.scheduler import MicroBatcher
from reranker.server import create_app

QUERY = "boundary layer on a flat plate"
DOCUMENTS = ["wings of birds", "Boundary layers on flat plates", "a plate of fish"]
Start = Callable[..., FlaskClient]


@pytest.fixture
def batcher(tiny: CrossEncoder) -> Iterator[MicroBatcher]:
    made = MicroBatcher(tiny)
    yield made
    made.close()


@pytest.fixture
def start(tiny: CrossEncoder, batcher: MicroBatcher) -> Start:
    def make(**given: Any) -> FlaskClient:
        settings = ServerSettings(_env_file=None, model="/unused", **{"max_documents": 5, **given})
        return create_app(settings, tiny, batcher).test_client()

    return make


@pytest.fixture
def client(start: Start) -> FlaskClient:
    return start()


def test_the_form_of_cohere_and_jina(client: FlaskClient) -> None:
    answer = client.post(
        "/v1/rerank",
        json={
            "model": "rerank-v3.5",
            "query": QUERY,
            "documents": [DOCUMENTS[0], {"text": DOCUMENTS[1], "id": 5}, DOCUMENTS[2]],
            "top_n": 2,
            "return_documents": True,
        },
    )
    assert answer.status_code == 200
    body = answer.json
    assert [item["index"] for item in body["results"]] == [1, 2]
    assert body["results"][0]["document"] == {"text": DOCUMENTS[1], "id": 5}
    assert body["meta"]["api_version"] == {"version": "1"}
    assert 1 > body["results"][0]["relevance_score"] > body["results"][1]["relevance_score"] > 0
    assert body["model"] == "tiny-cross-encoder"
    assert body["id"]
    assert body["usage"]["total_tokens"] == body["meta"]["tokens"]["input_tokens"] > 20
    assert (body["truncated"], body["query_truncated"], body["meta"]["warnings"]) == (0, False, [])
    for name in ("queue", "tokenization", "inference", "total"):
        assert int(answer.headers[f"x-{name}-time"]) >= 0
        assert f"{name};dur=" in answer.headers["Server-Timing"]


def test_both_versions_of_the_address_and_no_documents_unless_asked(client: FlaskClient) -> None:
    answer = client.post("/v2/rerank", json={"query": QUERY, "documents": DOCUMENTS, "top_n": 5, "odd": ["x"]})
    assert [set(item) for item in answer.json["results"]] == [{"index", "relevance_score"}] * 3
    assert answer.json["meta"]["warnings"] == [
        "the field 'odd' is ignored",
        "top_n 5 is more than the 3 documents: all are returned",
    ]


@pytest.mark.parametrize("kind", [cohere.Client, cohere.ClientV2])
def test_coheres_own_clients(start: Start, kind: Any) -> None:
    server = make_server("127.0.0.1", 0, start(key="secret").application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        found = kind("secret", base_url=address).rerank(model="any", query=QUERY, documents=DOCUMENTS, top_n=2)
        assert [item.index for item in found.results] == [1, 2]
        assert found.meta.api_version.version == ("2" if kind is cohere.ClientV2 else "1")
        with pytest.raises(cohere.UnprocessableEntityError) as refused:
            kind("secret", base_url=address).rerank(model="any", query=QUERY, documents=[])
        assert refused.value.body["message"].startswith("documents: List should have at least 1 item")
        with pytest.raises(cohere.UnauthorizedError) as refused:
            kind("wrong", base_url=address).rerank(model="any", query=QUERY, documents=DOCUMENTS)
        assert "send the reranker's key" in refused.value.body["message"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("address", ["/v1/rerank", "/v2/rerank"])
def test_fields_of_objects_are_ranked(client: FlaskClient, address: str) -> None:
    documents = [{"title": "a flat plate", "body": "boundary layer"}, {"body": "fish"}, "boundary layer"]
    body = {"query": QUERY, "documents": documents, "rank_fields": ["title", "body"], "return_documents": True}
    answer = client.post(address, json={**body, "max_chunks_per_doc": 3, "priority": 0})
    assert [item["document"] for item in answer.json["results"]] == [documents[0], {"text": documents[2]}, documents[1]]
    assert answer.json["meta"]["warnings"] == []
    for fields, said in ((None, "documents.0: has none of the fields to rank ('text')"), (["title"], "documents.1: ")):
        refused = client.post(address, json={**body, "rank_fields": fields})
        assert refused.status_code == 422
        assert refused.json["message"] == refused.json["detail"]
        assert refused.json["detail"].startswith(said)
    refused = client.post(address, json={"query": QUERY, "documents": [{"text": 5}]})
    assert refused.json["detail"] == "documents.0.text: Input should be a valid string (got int)"


def test_the_form_of_text_embeddings_inference(client: FlaskClient, tiny: CrossEncoder) -> None:
    logits = tiny.score(QUERY, DOCUMENTS).logits
    raw = client.post(
        "/rerank", json={"query": QUERY, "texts": DOCUMENTS, "raw_scores": True, "return_text": True}
    ).json
    assert [item["index"] for item in raw] == [1, 2, 0]
    assert [item["score"] for item in raw] == pytest.approx([float(logits[i]) for i in (1, 2, 0)], abs=1e-4)
    assert [item["text"] for item in raw] == [DOCUMENTS[i] for i in (1, 2, 0)]
    plain = client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS}).json
    assert [item["score"] for item in plain] == pytest.approx(tiny.settings.probability(logits)[[1, 2, 0]], abs=1e-4)


def test_scores_are_calibrated(client: FlaskClient, tiny: CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "settings", ModelSettings(name="m", calibration=Platt(a=1e-6, b=0)))
    answer = client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS}).json
    assert [item["relevance_score"] for item in answer["results"]] == pytest.approx([0.5] * 3, abs=1e-3)
    # the order is that of the logits, however flat the probabilities are
    assert [item["index"] for item in answer["results"]] == [1, 2, 0]


def test_truncation_is_said_or_forbidden(client: FlaskClient) -> None:
    long = "plate " * 1000
    answer = client.post("/v1/rerank", json={"query": QUERY, "documents": [long, "x"]})
    assert (answer.json["truncated"], answer.headers["x-truncated"]) == (1, "1")
    answer = client.post("/v1/rerank", json={"query": long, "documents": ["x"]})
    assert answer.json["query_truncated"] is True
    answer = client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS, "max_tokens_per_doc": 2})
    assert answer.json["truncated"] == 3
    assert client.post("/rerank", json={"query": QUERY, "texts": [long]}).headers["x-truncated"] == "1"
    refused = client.post("/rerank", json={"query": QUERY, "texts": [long, "x"], "truncate": False})
    assert refused.status_code == 422
    assert "1 of 2 documents would have to be cut to fit 256 tokens" in refused.json["detail"]


@pytest.mark.parametrize("address", ["/v1/rerank", "/rerank"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"documents": []}, "documents: List should have at least 1 item"),
        ({"documents": ["x"] * 6}, "6 documents are more than the limit of 5 (BRAID_RERANKER_MAX_DOCUMENTS)"),
        ({"documents": ["x", 5]}, "documents.1: "),
        ({"documents": [None]}, "got None"),
        ({"documents": "x"}, "documents: "),
        ({"documents": None}, "documents: "),
        ({"query": ""}, "query: "),
        ({"query": " \n"}, "the query is blank"),
        ({"query": 5}, "query: Input should be a valid string (got 5)"),
        ({"query": None}, "query: "),
        ({"timeout_ms": 0}, "timeout_ms: "),
        ({"timeout_ms": 10**9}, "timeout_ms: 1000000000 is over the limit of 100000"),
    ],
)
def test_bad_input_is_a_422_that_names_it(client: FlaskClient, address: str, change: dict[str, Any], said: str) -> None:
    body: dict[str, Any] = {"query": QUERY, "documents": DOCUMENTS, **change}
    if address == "/rerank":
        body["texts"] = body.pop("documents")
        said = said.replace("documents: ", "texts: ").replace("documents.1", "texts.1")
    answer = client.post(address, json=body)
    assert answer.status_code == 422
    assert answer.content_type == "application/problem+json"
    assert said in answer.json["detail"]


@pytest.mark.parametrize(
    ("value", "said"), [(0, "got 0"), (-1, "got -1"), (6, "top_n: 6 is more"), (1.5, "got 1.5"), ("1", "'1'")]
)
def test_top_n_out_of_range(client: FlaskClient, value: object, said: str) -> None:
    answer = client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS, "top_n": value})
    assert answer.status_code == 422
    assert said in answer.json["detail"]


def test_ten_thousand_documents(client: FlaskClient) -> None:
    answer = client.post("/v1/rerank", json={"query": QUERY, "documents": ["x"] * 10_000})
    assert answer.status_code == 422
    assert len(answer.data) < 500


def test_documents_that_are_not_text(client: FlaskClient) -> None:
    for document in (5, None, [], {"title": "x"}, {"text": 5}, True):
        answer = client.post("/v1/rerank", json={"query": QUERY, "documents": ["x", document]})
        assert answer.status_code == 422
        assert answer.json["detail"].startswith("documents.1")


def test_what_is_no_json(client: FlaskClient, start: Start) -> None:
    headers = {"Content-Type": "application/json"}
    assert client.post("/v1/rerank", data="{", headers=headers).status_code == 400
    assert (
        client.post("/v1/rerank", data='{"query": "\\ud800", "documents": ["x"]}', headers=headers).status_code == 400
    )
    assert client.post("/v1/rerank", data=b"\xff\xfe", headers=headers).status_code == 400
    assert client.post("/v1/rerank", data="[]", headers=headers).status_code == 422
    assert client.post("/v1/rerank", data="query=x").status_code == 415
    small = start(max_body_bytes=1024)
    answer = small.post("/v1/rerank", json={"query": QUERY, "documents": ["x" * 2000]})
    assert answer.status_code == 413
    assert "BRAID_RERANKER_MAX_BODY_BYTES" in answer.json["detail"]


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (Overloaded("full", retry_after_s=2.3), 429, "3"),
        (Overloaded("full", retry_after_s=0.1), 429, "1"),
        (DeadlinePassed("late"), 504, None),
        (InferenceError("broken"), 503, "1"),
    ],
)
def test_errors_of_the_scheduler(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, retry: str | None
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(scheduler.MicroBatcher, "score", fail)
    answer = client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS})
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, retry)
    assert answer.content_type == "application/problem+json"


def test_a_timeout_that_can_not_be_kept(
    client: FlaskClient, tiny: CrossEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tiny.tokenize

    def slow(*given: Any, **how: Any) -> Any:
        import time

        time.sleep(0.05)
        return real(*given, **how)

    monkeypatch.setattr(tiny, "tokenize", slow)
    answer = client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS, "timeout_ms": 5})
    assert answer.status_code == 504
    assert "within 5 ms" in answer.json["detail"]


def test_a_key_where_one_is_set(start: Start) -> None:
    client = start(key="secret")
    body = {"query": QUERY, "documents": DOCUMENTS}
    assert client.post("/v1/rerank", json=body).status_code == 401
    wrong = client.post("/v1/rerank", json=body, headers={"Authorization": "Bearer other"})
    assert wrong.headers["WWW-Authenticate"].startswith("Bearer")
    right = {"Authorization": "Bearer secret"}
    assert client.post("/v1/rerank", json=body, headers=right).status_code == 200
    assert client.get("/info").status_code == 401
    assert client.get("/metrics").status_code == 401
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_without_a_key_only_this_machine(client: FlaskClient) -> None:
    assert client.get("/info", headers={"Host": "evil.example"}).status_code == 401
    assert client.get("/info", headers={"Origin": "http://evil.example"}).status_code == 401


def test_operations(client: FlaskClient, batcher: MicroBatcher) -> None:
    client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS})
    info = client.get("/info").json
    assert (info["model"], info["max_tokens"], info["precision"]) == ("tiny-cross-encoder", 256, "fp32")
    assert info["provider"] == "cpu"
    assert client.get("/readyz").json["ready"] is True
    text = client.get("/metrics").text
    for name in ("reranker_queue_seconds_count", "reranker_pairs_total", "reranker_request_seconds_count"):
        assert name in text
    assert client.get("/nothing").status_code == 404
    assert client.get("/v1/rerank").headers["Allow"]
    batcher.close()
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 503
    assert client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS}).status_code == 503
