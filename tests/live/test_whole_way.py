"""From files of every type to a cited answer, over HTTP, on the real node: what a newcomer does."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from docx import Document as Word
from pptx import Presentation
from reportlab.pdfgen import canvas

from tests.unit.ingest.formats.build import FILES

pytestmark = pytest.mark.live


def pdf(text: str, heading: str) -> bytes:
    out = io.BytesIO()
    page = canvas.Canvas(out)
    page.setFont("Helvetica-Bold", 20)
    page.drawString(72, 760, heading)
    page.setFont("Helvetica", 11)
    page.drawString(72, 720, text)
    page.showPage()
    page.save()
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("handbook")
    (root / "pumps.pdf").write_bytes(pdf("The Zephyr pump must be primed with two litres of glycol.", "Zephyr pump"))
    slides = Presentation()
    slide = slides.slides.add_slide(slides.slide_layouts[1])
    slide.shapes.title.text = "Harbour crane"
    slide.placeholders[1].text = "The harbour crane lifts forty tonnes at most."
    slide.notes_slide.notes_text_frame.text = "The operator's licence is renewed every three years."
    slides.save(str(root / "crane.pptx"))
    word = Word()
    word.add_heading("Travel policy", 1)
    word.add_paragraph("Train journeys under five hours are booked in second class.")
    word.save(str(root / "travel.docx"))
    (root / "tea.html").write_text("<html><title>Tea room</title><h1>Opening</h1><p>The tea room opens at seven.</p>")
    (root / "error.md").write_text("# Errors\n\n## ERR-4711\n\nERR-4711 means that the cooling fan is blocked.\n")
    (root / "notes.txt").write_text("The spare key of the boiler room hangs behind the blue door.\n")
    (root / "ready.jsonl").write_text('{"_id": "r1", "title": "Moon", "text": "The moon base has eleven airlocks."}\n')
    (root / "broken.pdf").write_bytes(b"%PDF-1.7\nthis is not one")
    return root


@pytest.fixture(scope="module")
def service(braid_up: dict[str, Any], folder: Path) -> Iterator[httpx2.Client]:
    command = [sys.executable, "-m", "app.cli", "ingest", str(folder), "--json", "--source", "handbook"]
    env = {"BRAID_DATA_DIR": str(braid_up["data"]), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=300)
    assert done.returncode == 1, done.stderr  # one file is broken
    report = json.loads(done.stdout)
    assert report["new"] == 7
    assert [problem["reason"] for problem in report["failed"]] == ["broken"]
    with httpx2.Client(base_url=braid_up["url"], timeout=60, trust_env=False) as client:
        yield client


def post(service: httpx2.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = service.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("question", "document", "words"),
    [
        ("How much glycol does the Zephyr pump need?", "pumps.pdf", "two litres of glycol"),
        ("How much can the harbour crane lift?", "crane.pptx", "forty tonnes"),
        ("In which class are short train journeys booked?", "travel.docx", "second class"),
        ("When does the tea room open?", "tea.html", "at seven"),
        ("What does ERR-4711 mean?", "error.md", "cooling fan is blocked"),
        ("Where is the spare key of the boiler room?", "notes.txt", "behind the blue door"),
        ("How many airlocks has the moon base?", "r1", "eleven airlocks"),
    ],
)
def test_every_type_is_answered_with_the_right_citation(
    service: httpx2.Client, question: str, document: str, words: str
) -> None:
    found = post(service, "/v1/answer", query=question)
    assert not found["abstained"]
    assert found["model"] == "extractive"
    assert words in found["answer"]
    first = found["citations"][0]
    cited = found["results"][first["marker"] - 1]
    assert cited["id"] == first["id"]
    assert cited["document_id"].endswith(document)
    assert first["quote"] in cited["text"]
    stored = service.get(f"/v1/documents/{first['document_id']}").json()
    assert first["id"] in [passage["id"] for passage in stored["passages"]]


def test_the_stream_says_the_same(service: httpx2.Client) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    body = {"query": "When does the tea room open?", "stream": True}
    with service.stream("POST", "/v1/answer", json=body) as response:
        name = ""
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    names = [name for name, _ in events]
    assert names[0] == "retrieval"
    assert names[-1] == "done"
    assert "".join(data["text"] for name, data in events if name == "token") == events[-1][1]["answer"]
    assert [data for name, data in events if name == "citation"] == events[-1][1]["citations"]


def test_it_abstains_when_nothing_is_relevant(service: httpx2.Client) -> None:
    found = post(service, "/v1/answer", query="Which prime minister signed the treaty of Utrecht?")
    assert found["abstained"]
    assert found["citations"] == []


def test_a_document_is_found_replaced_and_removed(service: httpx2.Client) -> None:
    def status(text: str) -> str:
        return str(post(service, "/v1/documents", document_id="a/b c", title="Gate", text=text)["status"])

    generation = post(service, "/v1/search", query="gate")["index_generation"]
    assert status("The gate code is 1234.") == "created"
    assert status("The gate code is 1234.") == "unchanged"
    assert status("The gate code is 9876.") == "updated"
    found = post(service, "/v1/search", query="gate code", filter={"document_id": ["a/b c"]})
    assert [item["text"] for item in found["results"]] == ["The gate code is 9876."]
    assert found["index_generation"] > generation
    assert service.delete("/v1/documents/a/b c").status_code == 204
    assert service.get("/v1/documents/a/b c").status_code == 404
    assert service.delete("/v1/documents/a/b c").status_code == 404
    assert post(service, "/v1/search", query="gate code", filter={"document_id": ["a/b c"]})["total"] == 0


def test_a_file_is_uploaded(service: httpx2.Client) -> None:
    files = {"file": ("../../etc/lamp.pdf", pdf("The lamp of the lighthouse turns twice a minute.", "Lamp"))}
    made = service.post("/v1/documents", files=files, data={"topic_tags": "Sea, light"})
    assert made.status_code == 200, made.text
    assert made.json()["document_id"] == "lamp.pdf"
    found = post(service, "/v1/search", query="lighthouse lamp turns", filter={"topic_tags": ["sea"]})
    assert found["results"][0]["page"] == 1
    sheet = service.post("/v1/documents", files={"file": ("sales.xlsx", (FILES / "sales.xlsx").read_bytes())})
    assert "1 hidden sheets left out: Secret" in sheet.json()["warnings"]
    refused = service.post("/v1/documents", files={"file": ("x.exe", b"MZ\x00\x01")})
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("mode", ["hybrid", "lexical", "dense"])
@pytest.mark.parametrize("fusion", [{"method": "linear"}, {"method": "linear", "alpha": 0.2}, {"method": "rrf"}])
@pytest.mark.parametrize("explain", [False, True])
def test_every_filter_holds_in_every_mode(
    service: httpx2.Client, mode: str, fusion: dict[str, Any], explain: bool
) -> None:
    common = {"query": "harbour crane lifts glycol", "mode": mode, "fusion": fusion, "explain": explain, "size": 50}
    everything = post(service, "/v1/search", **common)["results"]
    assert everything
    for name, value in (
        ("source_type", "pptx"),
        ("source_id", "handbook"),
        ("document_id", everything[0]["document_id"]),
    ):
        found = post(service, "/v1/search", **common, filter={name: [value]})
        assert {item[name] for item in found["results"]} == {value}
    none = post(service, "/v1/search", **common, filter={"timestamp": {"lt": "1980-01-01"}})
    assert (none["results"], none["total"]) == ([], 0)
    assert all(item["score"] >= 0 for item in everything)


def test_pages_are_stable_and_explain_has_the_same_order(service: httpx2.Client) -> None:
    whole = [item["id"] for item in post(service, "/v1/search", query="the key door room", size=6)["results"]]
    pages = [
        item["id"]
        for start in (0, 2, 4)
        for item in post(service, "/v1/search", query="the key door room", size=2, **{"from": start})["results"]
    ]
    assert pages == whole
    native = post(service, "/v1/search", query="the key door room", size=6, candidates=10)
    explained = post(service, "/v1/search", query="the key door room", size=6, candidates=10, explain=True)
    assert [item["id"] for item in explained["results"]] == [item["id"] for item in native["results"]]
    assert explained["total"] == native["total"]
    assert explained["explanation"]["way"] == "legs"
    assert all(item["scores"]["dense"] is not None for item in explained["results"][:3])


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        ({"query": ""}, 422, ["body", "query"]),
        ({"query": "x" * 100_000}, 422, ["body", "query"]),
        ({"query": "x", "size": -1}, 422, ["body", "size"]),
        ({"query": "x", "size": 90, "from": 20}, 422, ["body", "size"]),
        ({"query": "x", "fusion": {"alpha": 2}}, 422, ["body", "fusion", "alpha"]),
        ({"query": "x", "filter": {"colour": ["red"]}}, 422, ["body", "filter", "colour"]),
        ({"query": "x", "filter": {"timestamp": {"gte": "soon"}}}, 422, ["body", "filter", "timestamp", "gte"]),
    ],
)
def test_bad_input_is_a_problem_with_its_place(
    service: httpx2.Client, body: dict[str, Any], status: int, place: list[str]
) -> None:
    answer = service.post("/v1/search", json=body)
    problem = answer.json()
    assert answer.status_code == problem["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert place in [item["loc"] for item in problem["errors"]]
    assert problem["request_id"] == answer.headers["x-request-id"]


def test_what_is_no_json_is_refused(service: httpx2.Client) -> None:
    json_type = {"content-type": "application/json"}
    assert service.post("/v1/search", content=b"{", headers=json_type).status_code == 400
    assert service.post("/v1/search", content=b"query=x").status_code == 415
    assert service.post("/v1/search", json={"query": "x"}, headers={"host": "evil.example"}).status_code == 401
    assert service.post("/v1/search", json={"query": "x"}, headers={"origin": "http://evil"}).status_code == 401
    assert service.get("/v1/search").status_code == 405


def test_an_altered_pipeline_makes_every_search_a_503(service: httpx2.Client, braid_up: dict[str, Any]) -> None:
    store = httpx2.Client(base_url=braid_up["opensearch_url"], trust_env=False)
    path = "/_search/pipeline/braid-hybrid-linear"
    good = store.get(path).json()["braid-hybrid-linear"]
    try:
        for alter in (lambda: store.delete(path), lambda: store.put(path, json={**good, "version": 99})):
            assert alter().status_code == 200
            time.sleep(0.6)
            answer = service.post("/v1/search", json={"query": "crane", "mode": "lexical"})
            while answer.status_code == 200 and answer.json()["degraded"]:  # a busy machine checks too late
                assert [item["stage"] for item in answer.json()["degraded"]] == ["readiness"]
                answer = service.post("/v1/search", json={"query": "crane", "mode": "lexical"})
            assert answer.status_code == 503
            assert "braid-hybrid-linear" in answer.json()["detail"]
            assert service.get("/readyz").status_code == 503
    finally:
        store.put(path, json=good)
        store.close()
    time.sleep(0.6)
    assert service.get("/readyz").status_code == 200
    assert post(service, "/v1/search", query="crane")["results"]


def test_openai_calls_and_operations(service: httpx2.Client) -> None:
    made = post(service, "/v1/embeddings", input=["a", "b"], model="all-MiniLM-L6-v2")
    assert [len(item["embedding"]) for item in made["data"]] == [384, 384]
    assert service.post("/v1/embeddings", json={"input": "a", "model": "gpt"}).status_code == 422
    assert service.get("/v1/models").json()["data"][0]["id"] == "all-MiniLM-L6-v2"
    assert service.get("/healthz").json() == {"status": "ok"}
    text = service.get("/metrics").text
    for name in ("query_encode", "lexical_search", "vector_search", "hybrid_search", "rerank", "generation", "request"):
        assert f"# TYPE {name}_latency_seconds histogram" in text
    assert service.get("/docs").status_code == 200
    assert post(service, "/v1/search", query="x", rerank=True)["degraded"] == []


def test_the_command_line_says_the_same(service: httpx2.Client, braid_up: dict[str, Any]) -> None:
    env = {"BRAID_DATA_DIR": str(braid_up["data"]), "PATH": "/usr/local/bin:/usr/bin:/bin"}

    def braid(*arguments: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env={**env, **more}, check=False, timeout=120)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    assert "blue door" in braid("ask", "Where is the spare key of the boiler room?").stdout
    assert "notes.txt" in braid("search", "spare key boiler room", "--size", "3").stdout
    found = json.loads(braid("search", "spare key", "--json", "--mode", "lexical").stdout)
    assert found["results"][0]["document_id"].endswith("notes.txt")
    assert "matches this service" in braid("templates", "diff").stdout
    assert "OpenSearch 2.19.1" in braid("doctor").stdout
    assert "size" in braid("search", "x", "--size", "-3", code=1).stderr
    assert "start `braid up`" in braid("ask", "x", "--url", "http://127.0.0.1:9", code=1).stderr
    assert "BRAID_ALPHA='7'" in braid("search", "x", code=2, BRAID_ALPHA="7").stderr
