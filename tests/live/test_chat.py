"""Chat by the clients that people have, unmodified: OpenAI's, LangChain's, and the `llm` command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import openai
import pytest
from langchain_openai import ChatOpenAI
from openai import OpenAI
from pydantic import SecretStr

from app.config import load_settings
from app.gateway.keys import KeyRing
from app.serving.opening import open_store
from app.store import templates
from tests.service import Service, running_service
from tests.unit.generation.endpoint import Endpoint, chunk, complete, endpoint

pytestmark = pytest.mark.live

SECRET = "a-secret-of-more-than-32-characters-for-keys"
QUESTION = "When does the ferry to Runö sail?"
SAID = ["The ferry ", "sails at noon [1]", "."]
TITLE = "Timetable [summer] *2026*"
URI = "https://ferries.test/timetable (new).pdf"


@dataclass
class Chat:
    service: Service
    model: Endpoint
    key: str

    @property
    def url(self) -> str:
        return f"{self.service.url}/v1"

    def client(self, key: str | None = None) -> OpenAI:
        return OpenAI(base_url=self.url, api_key=key or self.key, max_retries=0)

    def post(self, **body: Any) -> httpx2.Response:
        with self.service.client() as client:
            return client.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {self.key}"})


def writes(*pieces: str) -> Any:
    return lambda write, _: [write(event) for event in complete(*pieces)]


def asks(*contents: str) -> list[Any]:
    return [{"role": "user", "content": content} for content in contents]


@pytest.fixture(scope="module")
def served(opensearch_url: str) -> Iterator[Chat]:
    settings = load_settings(opensearch_url=opensearch_url, keys_secret=SECRET, opensearch_timeout_s=60)
    store = open_store(settings)
    templates.apply(store.cluster, store.capabilities, store.rendered)
    _, key = KeyRing(settings.access, store.cluster).create(
        name="chat", tenant=f"chat-{uuid4().hex[:12]}", roles=("search", "ingest")
    )
    with (
        endpoint(writes(*SAID)) as model,
        running_service(
            opensearch_url=opensearch_url,
            opensearch_timeout_s="60",
            timeout_ms="60000",
            keys_secret=SECRET,
            llm_url=model.url,
            llm_model="scripted",
            model_aliases="gpt-4o=braid",
        ) as service,
    ):
        body = {"document_id": "f", "title": TITLE, "uri": URI, "text": "The ferry to Runö sails at noon."}
        with service.client() as client:
            stored = client.post("/v1/documents", json=body, headers={"Authorization": f"Bearer {key}"})
        assert stored.status_code == 200, stored.text
        yield Chat(service, model, key)
    store.cluster.close()


@pytest.fixture
def chat(served: Chat) -> Chat:
    served.model.behaviour = writes(*SAID)
    return served


def test_openai_chats(chat: Chat) -> None:
    client = chat.client()
    assert "braid" in {item.id for item in client.models.list()}
    assert client.models.retrieve("gpt-4o").id == "gpt-4o"
    found = client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "developer", "content": "Be brief."}, *asks(QUESTION)],
        temperature=0.2,
        max_tokens=50,
        seed=3,
        extra_body={"braid": {"filter": {"document_id": ["f"]}, "size": 3}},
    )
    (choice,) = found.choices
    assert (found.object, found.model, choice.finish_reason) == ("chat.completion", "gpt-4o", "stop")
    assert choice.message.content == "The ferry sails at noon [1]."
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (7, 3)
    (annotation,) = choice.message.annotations or []
    place = annotation.url_citation
    assert choice.message.content[place.start_index : place.end_index] == "[1]"
    assert (place.title, place.url) == (TITLE, "https://ferries.test/timetable%20%28new%29.pdf")
    more = found.model_extra or {}
    assert more["citations"][0]["quote"] == "The ferry to Runö sails at noon."
    assert (more["braid"]["answered_by"], more["braid"]["abstained"]) == ("scripted", False)


def test_openai_streams(chat: Chat) -> None:
    chunks = list(
        chat.client().chat.completions.create(
            model="braid",
            messages=asks(QUESTION),
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"braid": {"cache": False}},
        )
    )
    first, *pieces, last, counts = chunks
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "The ferry sails at noon [1]."
    assert last.choices[0].finish_reason == "stop"
    assert (last.choices[0].delta.model_extra or {})["annotations"][0]["url_citation"]["start_index"] == 24
    assert (last.model_extra or {})["citations"][0]["document_id"] == "f"
    assert counts.choices == []
    assert counts.usage is not None
    assert counts.usage.total_tokens == 10
    assert all(item.usage is None for item in chunks[:-1])
    assert len({item.id for item in chunks}) == 1


def test_the_text_may_list_its_sources(chat: Chat) -> None:
    expected = "\n\nSources:\n\n- \\[1\\] [Timetable \\[summer\\] \\*2026\\*](<https://ferries.test/timetable%20%28new%29.pdf>)"
    body = {"model": "braid", "messages": asks(QUESTION), "braid": {"sources": "list"}}
    text = chat.post(**body).json()["choices"][0]["message"]["content"]
    assert text == "The ferry sails at noon [1]." + expected
    events = [json.loads(line[6:]) for line in chat.post(**body, stream=True).text.split("\n\n") if "{" in line]
    streamed = "".join(event["choices"][0]["delta"].get("content", "") for event in events if event["choices"])
    assert streamed == text


def test_a_question_is_answered_by_quotation_where_the_model_is_away(chat: Chat) -> None:
    chat.model.behaviour = lambda write, _: write(b"data: {broken\n\n")
    found = chat.post(model="braid", messages=asks(QUESTION), braid={"cache": False}).json()
    assert found["choices"][0]["message"]["content"] == "The ferry to Runö sails at noon. [1]"
    assert found["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert (found["braid"]["answered_by"], found["braid"]["degraded"][0]["stage"]) == ("extractive", "generation")


def test_langchain_chats(chat: Chat) -> None:
    model = ChatOpenAI(model="braid", base_url=chat.url, api_key=SecretStr(chat.key), max_retries=0)
    found = model.invoke([("system", "Be brief."), ("human", QUESTION)])
    assert found.text == "The ferry sails at noon [1]."
    assert "".join(piece.text for piece in model.stream(QUESTION)) == "The ferry sails at noon [1]."


def test_the_llm_command_chats(chat: Chat, tmp_path: Path) -> None:
    model = {"model_id": "documents", "model_name": "braid", "api_base": chat.url, "api_key_name": "braid"}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))  # JSON is YAML
    (tmp_path / "keys.json").write_text(json.dumps({"braid": chat.key}))
    for more in ([], ["--no-stream"]):
        said = subprocess.run(
            [sys.executable, "-m", "llm", "prompt", "-m", "documents", *more, QUESTION],
            env={**os.environ, "LLM_USER_PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert said.stdout.strip() == "The ferry sails at noon [1]."


def conversation(last: str) -> list[Any]:
    said = "Secret: the ferry to Utö sails at dawn [1]."
    return [*asks("When does the ferry to Runö sail?"), {"role": "assistant", "content": said}, *asks(last)]


def says(chat: Chat, *first: str) -> Any:
    """A model that says this first, and then what it always says."""
    chat.model.requests.clear()
    return lambda write, _: [write(item) for item in complete(*(first if len(chat.model.requests) == 1 else SAID))]


def test_a_follow_up_is_completed_by_the_model(chat: Chat) -> None:
    chat.model.behaviour = says(chat, "Who sails the ferry to Runö?")
    found = chat.post(model="braid", messages=conversation("Who sails it?"), braid={"cache": False}).json()
    assert found["braid"]["query_used"] == "Who sails the ferry to Runö?"
    assert (found["braid"]["query_completed_by"], found["braid"]["degraded"]) == ("model", [])
    rewriting, answering = (json.dumps(item["messages"], ensure_ascii=False) for item in chat.model.requests)
    assert "Who sails it?" in rewriting
    assert "Who sails the ferry to Runö?" in answering
    # an earlier answer may quote what was revoked since
    assert "Secret" not in rewriting + answering
    assert "When does" not in answering


@pytest.mark.parametrize("said", ["The capital of France is Paris, a large old city.", ""])
def test_a_follow_up_is_completed_by_rule_where_the_model_can_t(chat: Chat, said: str) -> None:
    chat.model.behaviour = says(chat, said)
    body = {"messages": conversation("Who sails it?"), "cache": False}
    with chat.service.client() as client:
        found = client.post("/v1/answer", json=body, headers={"Authorization": f"Bearer {chat.key}"}).json()
    assert found["query_completed_by"] == "rule"
    assert {"ferry", "Runö", "sails"} <= set(found["query_used"].replace(":", " ").split())
    assert [item["stage"] for item in found["degraded"]] == ["rewriting"]
    assert found["answer"] == "The ferry sails at noon [1]."


def test_a_question_of_its_own_is_answered_as_asked(chat: Chat) -> None:
    headers = {"Authorization": f"Bearer {chat.key}"}
    question = "At what time of the day does the ferry to Runö leave the harbour in summer?"
    with chat.service.client() as client:
        found = client.post("/v1/answer", json={"messages": conversation(question)}, headers=headers).json()
        both = client.post("/v1/answer", json={"messages": asks("x"), "query": "x"}, headers=headers)
        neither = client.post("/v1/answer", json={}, headers=headers)
    assert (found["query_used"], found["query_completed_by"], found["degraded"]) == (None, None, [])
    assert (both.status_code, both.json()["errors"][0]["loc"]) == (422, ["body", "messages"])
    assert (neither.status_code, neither.json()["errors"][0]["loc"]) == (422, ["body", "query"])


@pytest.mark.parametrize(
    ("body", "param", "part"),
    [
        ({"messages": []}, "messages", "at least"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "role user"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "wizard"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
         "messages[0].content", "image_url"),
        ({"messages": asks("x" * 40_000)}, "messages[0].content", "4096"),
        ({"messages": asks("x") * 1001}, "messages", "1000"),
        ({"messages": asks("x"), "n": 5}, "n", "(got 5)"),
        ({"messages": asks("x"), "stream": "yes"}, "stream", "valid boolean"),
        ({"messages": asks("x"), "filter": {"source_id": ["a"]}}, None, "filter is not OpenAI's"),
        ({"messages": asks("x"), "braid": {"filter": {"colour": ["red"]}}}, "braid.filter.colour", "unknown field"),
        ({"messages": asks("x"), "braid": {"query": "y"}}, "braid.query", "omit it"),
        ({"messages": asks("x"), "braid": {"sources": "all"}}, "braid.sources", "'all'"),
        ({"messages": asks("x"), "response_format": {"type": "json_object"}}, "response_format", "json_object"),
        ({"messages": "x"}, "messages", "valid array"),
        ({}, "messages", "required"),
    ],
)  # fmt: skip
def test_what_can_t_be_served_is_named(chat: Chat, body: dict[str, Any], param: str | None, part: str) -> None:
    response = chat.post(model="braid", **body)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (422, "invalid_request_error", param)
    assert part in error["message"]


def test_errors_are_shown_by_the_client(chat: Chat) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-5"):
        chat.client().chat.completions.create(model="gpt-5", messages=asks(QUESTION))
    with pytest.raises(openai.AuthenticationError):
        chat.client("wrong").chat.completions.create(model="braid", messages=asks(QUESTION))


def test_a_stream_of_a_revoked_key_ends_with_an_error(chat: Chat, opensearch_url: str) -> None:
    settings = load_settings(opensearch_url=opensearch_url, keys_secret=SECRET, opensearch_timeout_s=60)
    store = open_store(settings)
    ring = KeyRing(settings.access, store.cluster)
    record, key = ring.create(name="leaver", tenant="chat-leaver", roles=("search",))
    tenants_document = {"document_id": "f", "text": "The ferry to Runö sails at noon."}
    _, writer = ring.create(name="writer", tenant="chat-leaver", roles=("ingest",))
    with chat.service.client() as client:
        stored = client.post("/v1/documents", json=tenants_document, headers={"Authorization": f"Bearer {writer}"})
        assert stored.status_code == 200

    def slow(write: Any, closing: Any) -> None:
        write(chunk("The ferry"))
        closing.wait(60)

    chat.model.behaviour = slow
    stream = chat.client(key).chat.completions.create(model="braid", messages=asks(QUESTION), stream=True)
    assert next(stream).choices[0].delta.role == "assistant"
    ring.revoke(record.id)
    with pytest.raises(openai.APIError, match="revoked"):
        list(stream)
    store.cluster.close()
