"""The official clients of OpenAI, Cohere and LangChain against the service: address, key and model are all they get."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cohere
import httpx2
import numpy as np
import openai
import pytest
import tiktoken
from langchain_cohere import CohereRerank
from langchain_core.documents import Document
from langchain_openai import OpenAIEmbeddings
from openai import OpenAI
from pydantic import SecretStr
from werkzeug.serving import make_server

from app.api.factory import create_app
from app.api.services import Services
from app.config import load_settings
from app.config.retrieval import RerankerSettings
from app.deadline import Deadline
from app.embedding.encoder import Encoder
from app.errors import ConfigurationError, EncoderUnavailable
from app.gateway.identity import Identity
from app.gateway.keys import KeyRing
from app.gateway.roles import Role
from app.search.cross_encoding import LocalCrossEncoder
from app.store.client import Cluster
from tests.reranker_model import write_cross_encoder
from tests.service import NO_STORE, wait_for
from tests.unit.gateway.keystore import SECRET, KeyStore

KEY = "the-operators-key"
MODEL, WIRED_IN = "all-MiniLM-L6-v2", "text-embedding-3-small"
RERANKER = "cross-encoder/tiny-cross-encoder"
CAKE, ICE, FAN = "Apple cake with cinnamon.", "Ice makes a turbine vibrate.", "The fan of the turbine is blocked."
DOCUMENTS = [CAKE, ICE, FAN]
QUERY = "why does ice make a turbine vibrate"


class Running:
    """A served application."""

    def __init__(self, services: Services, url: str) -> None:
        self.services = services
        self.url = url

    def openai(self, key: str = KEY) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def embeddings(self) -> OpenAIEmbeddings:
        return OpenAIEmbeddings(
            model=MODEL, base_url=f"{self.url}/v1", api_key=SecretStr(KEY), check_embedding_ctx_length=False
        )


@contextmanager
def serving(services: Services) -> Iterator[Running]:
    server = make_server("127.0.0.1", 0, create_app(services), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Running(services, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def start(minilm: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Services]]:
    """Makes services with real models, and a store that nobody needs."""
    folder = write_cross_encoder(tmp_path_factory.mktemp("clients") / "tiny")
    made: list[Services] = []

    def make(**more: Any) -> Services:
        settings = load_settings(opensearch_url=NO_STORE, query_log="off", audit_log="off", api_key=KEY, **more)
        reranker = LocalCrossEncoder(RerankerSettings(model=folder, threads=1))
        made.append(Services(settings, Cluster(settings.opensearch, connections=1), minilm, reranker))
        return made[-1]

    yield make
    for services in made:
        services.close()


@pytest.fixture(scope="module")
def running(start: Callable[..., Services]) -> Iterator[Running]:
    aliases = f"{WIRED_IN}={MODEL}, rerank-v3.5 = {RERANKER}, gpt-4o=nothing"
    with serving(start(model_aliases=aliases)) as found:
        yield found


def test_openai_embeds(running: Running, minilm: Encoder) -> None:
    client = running.openai()
    found = client.embeddings.create(model=MODEL, input=DOCUMENTS)  # the client asks for base64
    expected = minilm.encode_passages(DOCUMENTS)
    assert np.array([item.embedding for item in found.data]) == pytest.approx(expected, abs=1e-5)
    assert [item.index for item in found.data] == [0, 1, 2]
    assert (found.model, found.usage.prompt_tokens > 15) == (MODEL, True)
    plain = client.embeddings.create(model=WIRED_IN, input=CAKE, encoding_format="float", dimensions=384, user="u")
    assert plain.model == MODEL
    assert plain.data[0].embedding == pytest.approx(expected[0].tolist(), abs=1e-5)


def test_openai_embeds_as_many_texts_as_its_own_service_takes(running: Running, minilm: Encoder) -> None:
    texts = [f"turbine {number}" for number in range(2048)]
    found = running.openai().embeddings.create(model=MODEL, input=texts)
    vectors = np.array([item.embedding for item in found.data])
    for place in (0, 31, 32, 2047):
        assert vectors[place] == pytest.approx(minilm.encode_passages([texts[place]])[0], abs=1e-4)


def test_searches_go_between_the_batches_of_a_long_list(start: Callable[..., Services]) -> None:
    services = start(concurrency=1, queue=4)
    order: list[str] = []
    inside, waiting = threading.Event(), threading.Event()
    encode = services.encoder.encode_passages

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(services.encoder, name)

        def within(self, deadline: Deadline) -> Watched:
            return self

        def encode_passages(self, texts: list[str]) -> Any:
            order.append("batch")
            inside.set()
            assert waiting.wait(30)
            return encode(texts)

    embed = type(services.embed)(services.admission, Watched(), 10_000)  # type: ignore[arg-type]
    thread = threading.Thread(target=lambda: embed.run(["a"] * 100, "passage"))
    thread.start()
    assert inside.wait(30)

    def search() -> None:
        with services.admission.enter(Deadline.after(10_000)):
            order.append("search")

    searching = threading.Thread(target=search)
    searching.start()
    wait_for(lambda: services.admission._waiting, "the search waits")
    waiting.set()
    searching.join()
    thread.join()
    assert order == ["batch", "search", "batch", "batch", "batch"]


def test_openai_lists_models(running: Running) -> None:
    client = running.openai()
    assert [item.id for item in client.models.list()] == [MODEL, RERANKER, "braid", WIRED_IN, "rerank-v3.5"]
    for name in (MODEL, RERANKER, WIRED_IN):
        assert client.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError, match="model 'gpt-4o' is not served") as raised:
        client.models.retrieve("gpt-4o")
    assert (raised.value.code, raised.value.param) == ("not-found", "model")


@pytest.mark.parametrize(
    ("asked", "error", "words", "param"),
    [
        ({"input": []}, openai.UnprocessableEntityError, "at least 1 item", "input"),
        ({"input": [""]}, openai.UnprocessableEntityError, "at least 1 character", "input[0]"),
        ({"input": ["a"] * 3000}, openai.UnprocessableEntityError, "at most 2048 items", "input"),
        ({"input": ["a" * 32_000] * 200}, openai.UnprocessableEntityError, "6400000 characters together", "input"),
        ({"input": [[1, 2]]}, openai.UnprocessableEntityError, "check_embedding_ctx_length=False", "input"),
        ({"input": [1, 2]}, openai.UnprocessableEntityError, "token ids are not taken", "input"),
        ({"input": "a", "dimensions": 256}, openai.UnprocessableEntityError, "dimensions 256 is not", "dimensions"),
        ({"input": "a", "model": "gpt-4o"}, openai.UnprocessableEntityError, "BRAID_MODEL_ALIASES", "model"),
        ({"input": [], "encoding_format": "base64"}, openai.UnprocessableEntityError, "at least 1 item", "input"),
        ({"input": "a", "extra_body": {"shape": 1}}, openai.UnprocessableEntityError, "unknown field", "shape"),
        ({"input": "a", "extra_headers": {"Content-Type": "text/plain"}}, openai.APIStatusError, "text/plain", None),
    ],
)  # fmt: skip
def test_openai_shows_what_is_wrong(
    running: Running, asked: dict[str, Any], error: type[openai.APIStatusError], words: str, param: str | None
) -> None:
    with pytest.raises(error) as raised:
        running.openai().embeddings.create(**{"model": MODEL, **asked})
    assert words in raised.value.message
    assert raised.value.param == param
    assert raised.value.type == "invalid_request_error"
    assert raised.value.request_id


def test_openai_raises_its_own_exception_for_each_status(
    start: Callable[..., Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    services = start(keys_secret=SECRET, max_body_bytes=1000, concurrency=1, queue=0)
    store = KeyStore()
    _, other = KeyRing(services.settings.access, store).create(name="n", tenant="t", roles=[Role.FEEDBACK.value])
    services.identity = Identity(services.settings, store)

    def failing(error: Exception) -> Callable[..., Any]:
        def fail(*_: object) -> None:
            raise error

        return fail

    with serving(services) as running:

        def ask(error: type[openai.APIStatusError], words: str, kind: str, key: str = KEY, text: str = "a") -> None:
            with pytest.raises(error) as raised:
                running.openai(key).embeddings.create(model=MODEL, input=text)
            assert words in raised.value.message
            assert raised.value.type == kind

        ask(openai.AuthenticationError, "key", "authentication_error", key="wrong")
        ask(openai.PermissionDeniedError, "role search", "permission_error", key=other)
        ask(openai.APIStatusError, "larger than 1000 bytes", "invalid_request_error", text="a" * 2000)
        with pytest.raises(openai.BadRequestError, match="not valid JSON"):
            running.openai().post("/embeddings", content=b"{", cast_to=object)
        with pytest.raises(openai.NotFoundError, match="unknown path"):
            running.openai().completions.create(model="a", prompt="b")
        leave = services.admission.take(Deadline.after(10_000))
        ask(openai.RateLimitError, "the service is busy", "rate_limit_error")
        leave()
        with monkeypatch.context() as patch:
            patch.setattr(services.encoder, "encode_passages", failing(EncoderUnavailable("its server is away")))
            ask(openai.InternalServerError, "its server is away", "server_error")
            patch.setattr(services.encoder, "encode_passages", failing(RuntimeError("secret")))
            ask(openai.InternalServerError, "a bug in the service", "server_error")


def test_openai_is_told_of_a_limit(start: Callable[..., Services]) -> None:
    with serving(start(rate_limit_key="1/hour")) as running:
        running.openai().models.list()
        with pytest.raises(openai.RateLimitError, match="the limit of this caller is exhausted") as raised:
            running.openai().embeddings.create(model=MODEL, input="a")
        assert raised.value.code == "rate-limited"
        assert raised.value.response.headers["x-ratelimit-remaining-requests"] == "0"
        assert int(raised.value.response.headers["retry-after"]) > 3000


def test_langchain_embeds(running: Running, minilm: Encoder) -> None:
    found = running.embeddings().embed_documents([*DOCUMENTS] * 400)
    assert len(found) == 1200
    assert found[0] == pytest.approx(minilm.encode_passages([CAKE])[0].tolist(), abs=1e-4)
    assert len(running.embeddings().embed_query(QUERY)) == 384


def test_langchain_shows_the_remedy_where_it_sends_token_ids(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    # its default; tiktoken's own vocabularies would have to be downloaded
    bytewise = tiktoken.Encoding(
        "bytes", pat_str=".", mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens={}
    )
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda _: bytewise)
    client = OpenAIEmbeddings(model=WIRED_IN, base_url=f"{running.url}/v1", api_key=SecretStr(KEY))
    with pytest.raises(openai.UnprocessableEntityError, match="check_embedding_ctx_length=False"):
        client.embed_documents(DOCUMENTS)


@pytest.mark.parametrize("model", [RERANKER, "rerank-v3.5"])
@pytest.mark.parametrize("kind", [cohere.Client, cohere.ClientV2])
def test_cohere_reranks(running: Running, kind: Any, model: str) -> None:
    found = kind(KEY, base_url=running.url).rerank(model=model, query=QUERY, documents=DOCUMENTS, top_n=2)
    assert [item.index for item in found.results] == [1, 2]
    assert 1 >= found.results[0].relevance_score > found.results[1].relevance_score >= 0
    assert found.id
    assert found.meta.api_version.version == ("2" if kind is cohere.ClientV2 else "1")


def test_cohere_ranks_fields_of_objects_and_gets_them_back(running: Running) -> None:
    client = cohere.Client(KEY, base_url=running.url)
    documents = [{"title": "handbook of wings", "text": CAKE, "id": "7"}, {"text": ICE}, "nothing of that"]
    asked: dict[str, Any] = {"model": RERANKER, "query": QUERY, "documents": documents, "return_documents": True}
    by_text = client.rerank(**asked, max_chunks_per_doc=5)
    assert by_text.results[0].document is not None
    assert by_text.results[0].document.text == ICE
    by_title = client.rerank(**{**asked, "query": "a handbook of wings"}, rank_fields=["title", "text"])
    assert by_title.results[0].document is not None
    assert by_title.results[0].document.model_dump() == documents[0]
    assert [item.document.text for item in by_title.results if item.index == 2 and item.document] == ["nothing of that"]


def test_cohere_limits_the_tokens_of_a_document(running: Running) -> None:
    client = cohere.ClientV2(KEY, base_url=running.url)
    late = f"{'word ' * 20}{ICE}"
    whole, cut = (
        client.rerank(model=RERANKER, query=QUERY, documents=[CAKE, late], max_tokens_per_doc=most, priority=1)
        for most in (4096, 10)
    )
    assert whole.results[0].index == 1
    assert cut.results[0].relevance_score < whole.results[0].relevance_score


@pytest.mark.parametrize(
    ("kind", "change", "error", "words"),
    [
        (cohere.Client, {"documents": []}, cohere.UnprocessableEntityError, "documents: List should have at least 1"),
        (cohere.Client, {"documents": [{"title": "x"}]}, cohere.UnprocessableEntityError, "documents.0: has none of"),
        (cohere.Client, {"rank_fields": ["n"], "documents": [{"n": 5}]}, cohere.UnprocessableEntityError, "0.n: Input"),
        (cohere.Client, {"max_chunks_per_doc": 0}, cohere.UnprocessableEntityError, "max_chunks_per_doc"),
        (cohere.ClientV2, {"max_tokens_per_doc": 0}, cohere.UnprocessableEntityError, "max_tokens_per_doc"),
        (cohere.ClientV2, {"model": "rerank-v2"}, cohere.UnprocessableEntityError, "'rerank-v2' is not served"),
        (cohere.ClientV2, {"documents": ["a"] * 1001}, cohere.UnprocessableEntityError, "at most 1000"),
        (cohere.ClientV2, {"key": "wrong"}, cohere.UnauthorizedError, "key"),
        (cohere.Client, {"key": "wrong"}, cohere.UnauthorizedError, "key"),
    ],
)
def test_cohere_shows_what_is_wrong(
    running: Running, kind: Any, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    client = kind(change.pop("key", KEY), base_url=running.url)
    with pytest.raises(error) as raised:
        client.rerank(**{"model": RERANKER, "query": QUERY, "documents": DOCUMENTS, **change})
    assert words in raised.value.body["message"]  # type: ignore[attr-defined]


def test_langchain_reranks(running: Running) -> None:
    client = CohereRerank(model=RERANKER, cohere_api_key=SecretStr(KEY), base_url=running.url, top_n=2)
    found = client.compress_documents([Document(text, metadata={"n": n}) for n, text in enumerate(DOCUMENTS)], QUERY)
    assert [item.metadata["n"] for item in found] == [1, 2]
    assert found[0].metadata["relevance_score"] > found[1].metadata["relevance_score"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/v2/rerank", "/v1/models", "/v1/models/x"])
def test_no_door_opens_without_a_key(running: Running, path: str) -> None:
    method = "GET" if "models" in path else "POST"
    answer = httpx2.request(method, running.url + path, json={} if method == "POST" else None, trust_env=False)
    assert answer.status_code == 401
    body = answer.json()
    assert body.get("message", body.get("error", {}).get("message")) == body["detail"]


def test_other_names_are_pairs() -> None:
    with pytest.raises(ConfigurationError, match=r"BRAID_MODEL_ALIASES.*'gpt-4o' is no pair"):
        load_settings(model_aliases="a=b,gpt-4o")
    with pytest.raises(ConfigurationError, match=r"BRAID_MODEL_ALIASES.*'a' is there twice"):
        load_settings(model_aliases="a=b,a=c")
    assert load_settings(model_aliases=" a = b=c ,").server.aliases == {"a": "b=c"}
