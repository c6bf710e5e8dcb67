"""A calibration made on a real node, as `braid calibrate` makes it, and a service without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from app.api.factory import create_app
from app.api.services import Services
from app.calibration import calibration_for
from app.config import load_settings
from app.embedding.encoder import Encoder
from app.store.client import Cluster

ANIMALS = ("otter", "heron", "lynx", "beetle", "salmon", "badger", "falcon", "newt")
MACHINES = ("lathe", "turbine", "loom", "crane", "printer", "furnace", "pump", "robot")


def write_set(folder: Path, topics: tuple[str, ...], place: str) -> Path:
    folder.mkdir()
    corpus = [
        {
            "_id": topic,
            "title": topic,
            "text": f"The {topic} is at home {place}. Visitors often ask about the age of the {topic}, and nobody "
            f"knows it. A {topic} of twelve years was seen there by two students last summer.",
        }
        for topic in topics
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    asked = [{"_id": f"q-{topic}", "text": f"where is the {topic} at home"} for topic in topics]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (folder / "qrels.tsv").write_text("".join(f"q-{topic}\t{topic}\t1\n" for topic in topics))
    return folder


def test_from_two_judged_sets_to_a_calibration_that_serves(braid_up: dict[str, Any], tmp_path: Path) -> None:
    sets = [
        write_set(tmp_path / "animals", ANIMALS, "at the river"),
        write_set(tmp_path / "machines", MACHINES, "in halls"),
    ]
    command = [sys.executable, "-m", "app.cli", "calibrate", *sets, "--out", tmp_path / "own", "--licence", "CC0"]
    environment = {"BRAID_DATA_DIR": str(braid_up["data"]), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "BRAID_EMBEDDING_CALIBRATION" in done.stdout
    found = calibration_for(load_settings(embedding_calibration=str(tmp_path / "own")).embedding, "all-MiniLM-L6-v2")
    assert found is not None
    assert found.token_projection is not None
    assert found.weight_model is None  # 16 queries teach nothing
    assert 0.1 < found.answers.min_covered_cosine < found.answers.min_cosine < 0.7
    data = {item["set"]: item for item in found.about["data"]}
    assert (data["animals"]["licence"], data["machines"]["licence"]) == ("CC0", "not stated")
    assert (data["animals"]["own questions"], data["animals"]["foreign questions"]) == (8, 8)
    assert "| machines | not stated |" in (tmp_path / "own" / "fp32.md").read_text()


def test_a_service_says_that_its_model_is_not_calibrated_and_which_setting_serves_the_index(
    braid_up: dict[str, Any], model_folder: Path
) -> None:
    own = load_settings(
        opensearch_url=braid_up["opensearch_url"],
        embedding_model="some-other-model",
        embedding_path=str(model_folder),
        query_log="off",
    )
    services = Services(own, Cluster(own.opensearch), Encoder(model_folder, name="some-other-model"))
    try:
        ready: Any = create_app(services).test_client().get("/readyz").json
    finally:
        services.close()
    assert any(
        "some-other-model has no calibration" in item and "braid calibrate" in item for item in ready["warnings"]
    )
    serves = "BRAID_EMBEDDING_MODEL=all-MiniLM-L6-v2 BRAID_EMBEDDING_PRECISION=fp32 serves this one"
    assert any(serves in item for item in ready["problems"])
