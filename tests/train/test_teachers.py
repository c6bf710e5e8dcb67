"""Teachers: late interaction, judgements, folders, servers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.config import load_settings
from app.errors import ProvisioningError
from app.provision.models import ensure_model
from reranker.errors import ConfigurationError, InferenceError, ModelFolderError
from reranker.rankings import Candidate, Ranking
from reranker.train import teachers
from reranker.train.export import export
from reranker.train.late_interaction import LateInteraction
from reranker.train.teachers import BuiltinTeacher, RemoteTeacher, teacher_of

pytestmark = pytest.mark.filterwarnings("ignore")

ASKED = Ranking(
    "1",
    "how tall is the tower",
    (
        Candidate("a", "The tower is 300 metres high.", 0.4),
        Candidate("b", "Bread is baked from flour and water.", 0.5),
        Candidate("c", "The height of the tower grows in summer.", 0.3),
    ),
)


@pytest.fixture(scope="module")
def minilm() -> Path:
    try:
        return ensure_model("all-MiniLM-L6-v2", "fp32", load_settings().machine)
    except ProvisioningError as error:
        pytest.skip(f"the encoder can't be had here: {error.detail}")


def test_late_interaction_knows_a_tower_from_bread(minilm: Path) -> None:
    model = LateInteraction(minilm, threads=1)
    texts = [item.text for item in ASKED.candidates]
    scores = model.scores(ASKED.query, texts)
    assert scores.argmin() == 1
    assert (np.abs(scores) <= 1.001).all()
    assert model.encoded == 3
    assert np.allclose(model.scores(ASKED.query, texts), scores)
    assert model.encoded == 3, "passages are encoded once"


def test_the_builtin_teacher_blends_both(minilm: Path) -> None:
    teacher = BuiltinTeacher([LateInteraction(minilm, threads=1)])
    scores = teacher.scores(ASKED)
    assert scores.argmax() == 0
    assert ((scores >= 0) & (scores <= 1)).all()
    assert "all-MiniLM-L6-v2" in teacher.name


def test_a_folder_of_either_kind_scores_the_same(classifier: Path, tmp_path: Path) -> None:
    export(classifier, tmp_path / "ours", max_tokens=32)
    made = [
        teacher_of(str(folder), encoders=(), key=None, threads=1, max_tokens=32)()
        for folder in (classifier, tmp_path / "ours")
    ]
    one, other = (teacher.scores(ASKED) for teacher in made)
    assert np.abs(one - other).max() < 1e-4


def test_judgements_alone(tmp_path: Path) -> None:
    assert teacher_of("labels", encoders=(), key=None, threads=1, max_tokens=32)().scores(ASKED).tolist() == [0, 0, 0]


def test_what_is_no_teacher(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected `builtin`"):
        teacher_of(str(tmp_path), encoders=(), key=None, threads=1, max_tokens=32)
    with pytest.raises(ConfigurationError, match="--encoder FOLDER"):
        teacher_of("builtin", encoders=(), key=None, threads=1, max_tokens=32)
    with pytest.raises(ModelFolderError, match=r"no model\.onnx"):
        LateInteraction(tmp_path)


@contextmanager
def server(*answers: tuple[int, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Answers in turn, the last one for ever."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, answer = answers[min(len(asked), len(answers) - 1)]
            asked.append({"path": self.path, "key": self.headers.get("authorization"), **body})
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            """Quiet."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}", asked
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def results(*scores: float) -> dict[str, Any]:
    ranked = sorted(enumerate(scores), key=lambda item: -item[1])
    return {"results": [{"index": index, "relevance_score": score} for index, score in ranked]}


def test_a_server_is_asked_for_all_documents_and_its_order_undone() -> None:
    with server((200, results(0.2, 0.1, 0.9))) as (url, asked):
        assert RemoteTeacher(url, key="k").scores(ASKED).tolist() == [0.2, 0.1, 0.9]
    assert (asked[0]["path"], asked[0]["key"], asked[0]["top_n"]) == ("/v1/rerank", "Bearer k", 3)


def test_a_busy_server_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers.time, "sleep", lambda seconds: None)
    with server((429, {}), (503, {}), (200, results(1, 2, 3))) as (url, asked):
        assert RemoteTeacher(f"{url}/v1/rerank").scores(ASKED).tolist() == [1, 2, 3]
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (401, {}, "status 401"),
        (200, {"results": [{"index": 0, "relevance_score": 0.1}]}, "2 of 3 documents have no score"),
        (200, {"scores": [1, 2, 3]}, "expected results with index"),
    ],
)
def test_a_server_that_is_none(status: int, answer: Any, expected: str) -> None:
    with server((status, answer)) as (url, asked), pytest.raises(InferenceError, match=expected):
        RemoteTeacher(url).scores(ASKED)
    assert len(asked) == 1, "what will not get better is not asked again"


def test_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers.time, "sleep", lambda seconds: None)
    with pytest.raises(InferenceError, match=r"does not answer .*repeat the command"):
        RemoteTeacher("http://127.0.0.1:1").scores(ASKED)
