"""Ingest as a user runs it: again, changed, killed, with the cluster away, with files that can't go in."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen import canvas

from app.config import Settings
from tests.proxy import Proxy
from tests.unit.ingest.formats.build import FILES

pytestmark = pytest.mark.live


class Braid:
    """`braid ingest` beside the running service, and what the store then holds."""

    def __init__(self, up: dict[str, Any], service: httpx2.Client) -> None:
        self._environment = {"BRAID_DATA_DIR": str(up["data"]), "PATH": os.environ["PATH"]}
        self.store = httpx2.Client(base_url=up["opensearch_url"], trust_env=False, timeout=60)
        self.store_url = str(up["opensearch_url"])
        self.service = service

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "app.cli", "ingest", *arguments, "--json"]
        env = {**self._environment, **environment}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)

    def ingest(self, *arguments: str, code: int = 0, **environment: str) -> dict[str, Any]:
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=240)
        assert process.returncode == code, err
        assert out, err
        report: dict[str, Any] = json.loads(out)
        return report

    def count(self, source: str) -> int:
        self.store.post("/braid-passages/_refresh")
        found = self.store.post("/braid-passages/_count", json={"query": {"term": {"source_id": source}}})
        return int(found.json()["count"])

    def in_force(self, source: str) -> int:
        """Documents whose heads name a version, as far as heads are searched already."""
        self.store.post("/braid-heads/_refresh")
        filters = [{"term": {"source_id": source}}, {"term": {"deleted": False}}]
        found = self.store.post("/braid-heads/_count", json={"query": {"bool": {"filter": filters}}})
        return int(found.json()["count"])

    def documents(self, source: str) -> int:
        self.store.post("/braid-passages/_refresh")
        body = {
            "size": 0,
            "query": {"term": {"source_id": source}},
            "aggs": {"n": {"cardinality": {"field": "document_id", "precision_threshold": 40000}}},
        }
        return int(self.store.post("/braid-passages/_search", json=body).json()["aggregations"]["n"]["value"])

    def search(self, query: str, source: str) -> list[dict[str, Any]]:
        body = {"query": query, "filter": {"source_id": [source]}}
        results: list[dict[str, Any]] = self.service.post("/v1/search", json=body).json()["results"]
        return results


@pytest.fixture
def braid(braid_up: dict[str, Any]) -> Iterator[Braid]:
    with httpx2.Client(base_url=braid_up["url"], timeout=60, trust_env=False) as service:
        found = Braid(braid_up, service)
        yield found
        found.store.close()


def rows(path: Path, count: int, words: str = "The valve of pump number {n} is checked in week {n}.") -> Path:
    with path.open("w") as out:
        for n in range(count):
            out.write(json.dumps({"_id": f"{path.stem}-{n}", "title": f"Pump {n}", "text": words.format(n=n)}) + "\n")
    return path


def test_a_rerun_skips_what_is_there_and_replaces_what_changed(braid: Braid, tmp_path: Path) -> None:
    folder = tmp_path / "rerun"
    (folder / "Manuals").mkdir(parents=True)
    (folder / "Manuals" / "a.md").write_text("# Alpha\n\nThe alpha pump runs on steam.\n")
    (folder / "b.txt").write_text("The beta pump runs on diesel.\n")
    first = braid.ingest(str(folder), "--tag", "Pumps")
    assert (first["new"], first["changed"], first["unchanged"], first["failed"]) == (2, 0, 0, [])
    again = braid.ingest(str(folder), "--tag", "Pumps")
    assert (again["new"], again["changed"], again["unchanged"], again["passages"]) == (0, 0, 2, 0)
    (found,) = [item for item in braid.search("alpha steam", "rerun") if "steam" in item["text"]]
    assert sorted(found["topic_tags"]) == ["manuals", "pumps"]
    (folder / "Manuals" / "a.md").write_text("# Alpha\n\nThe alpha pump runs on electricity.\n")
    changed = braid.ingest(str(folder), "--tag", "Pumps")
    assert (changed["new"], changed["changed"], changed["unchanged"]) == (0, 1, 1)
    assert not [item for item in braid.search("alpha steam", "rerun") if "steam" in item["text"]]
    assert braid.count("rerun") == 2
    (folder / "b.txt").unlink()
    assert braid.ingest(str(folder), "--tag", "Pumps")["deleted"] == 0
    assert braid.ingest(str(folder), "--tag", "Pumps", "--sync")["deleted"] == 1
    assert braid.count("rerun") == 1


def test_a_document_can_be_found_at_every_moment_of_its_replacement(braid: Braid, tmp_path: Path) -> None:
    folder = tmp_path / "always"
    folder.mkdir()
    page = folder / "page.md"
    stop = threading.Event()
    counts: list[int] = []

    def look() -> None:
        while not stop.is_set():
            counts.append(len(braid.search("turbine", "always")))
            time.sleep(0.05)  # cached answers come so fast that the watchers would take the processor from the ingest

    def write(version: int) -> None:
        page.write_text(
            "".join(
                f"\n# Part {n}\n\nThe turbine of version {version} has part {n}. {'More of it. ' * 40}\n"
                for n in range(30)
            )
        )

    write(0)
    braid.ingest(str(folder))
    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for version in (1, 2, 3):
            write(version)
            assert braid.ingest(str(folder))["changed"] == 1
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()
    assert len(counts) > 20
    assert min(counts) == 10
    assert all("version 3" in item["text"] for item in braid.search("turbine", "always"))


def test_a_killed_run_is_finished_by_the_next(braid: Braid, tmp_path: Path) -> None:
    path = rows(tmp_path / "killed.jsonl", 1500)
    process = braid.start(str(path), "--source", "killed")
    with process:
        while braid.in_force("killed") < 200:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = braid.in_force("killed")
    assert 200 <= before < 1500
    report = braid.ingest(str(path), "--source", "killed")
    assert report["unchanged"] == before
    assert report["new"] + report["unchanged"] == 1500
    assert (braid.count("killed"), braid.documents("killed")) == (1500, 1500)


def test_ctrl_c_ends_a_run_at_once_and_in_order(braid: Braid, tmp_path: Path) -> None:
    path = rows(tmp_path / "stopped.jsonl", 3000)
    with braid.start(str(path), "--source", "stopped") as process:
        while braid.count("stopped") < 100:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_braid_up_stops_in_the_middle_of_an_ingest(
    node_settings: Settings, server_folder: Path, tmp_path: Path
) -> None:
    path = rows(tmp_path / "much.jsonl", 5000)
    data = server_folder / "data"
    command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data", str(data), str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not (data / "braid.json").is_file():
                assert process.poll() is None
                time.sleep(0.1)
            here = json.loads((data / "braid.json").read_text())
            store, auth = here["opensearch_url"], (here["opensearch_user"], here["opensearch_password"])
            while httpx2.get(f"{store}/braid-passages/_count", auth=auth, trust_env=False).json()["count"] < 50:
                assert process.poll() is None
                time.sleep(0.1)
            family = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=100)
        finally:
            process.kill()
    assert process.returncode == 0
    assert err.splitlines()[-1] == "stopped"
    assert "Traceback" not in err
    assert not [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def test_a_cluster_that_goes_away_and_comes_back_loses_nothing(braid: Braid, tmp_path: Path) -> None:
    path = rows(tmp_path / "away.jsonl", 1200)
    there, _, port = braid.store_url.rpartition(":")
    with Proxy(int(port)) as proxy:
        url = f"{there}:{proxy.port}"
        with braid.start(str(path), "--source", "away", BRAID_OPENSEARCH_URL=url) as process:
            while braid.count("away") < 200:
                assert process.poll() is None
                time.sleep(0.05)
            proxy.cut()
            time.sleep(2)
            assert process.poll() is None, "it gave up within two seconds"
            proxy.mend()
            out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert json.loads(out)["new"] == 1200
    assert (braid.count("away"), braid.documents("away")) == (1200, 1200)


def test_a_cluster_that_is_down_is_a_clear_error(braid: Braid, tmp_path: Path) -> None:
    path = rows(tmp_path / "down.jsonl", 3)
    with Proxy(1) as proxy:
        port = proxy.port
    with braid.start(str(path), BRAID_OPENSEARCH_URL=f"http://127.0.0.1:{port}") as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert out == ""
    assert f"127.0.0.1:{port}" in err
    assert "Traceback" not in err


def ingest_on_a_full_disk(braid: Braid, path: Path) -> tuple[int, str] | None:
    """Run `braid ingest` under the block of a full disk; None where the node lifted the block meanwhile."""
    settings, block = "/braid-passages/_settings", "index.blocks.read_only_allow_delete"
    braid.store.put(settings, json={block: True}).raise_for_status()
    try:
        with braid.start(str(path), "--source", path.stem) as process:
            _, err = process.communicate(timeout=120)
        found = braid.store.get(settings, params={"flat_settings": "true"}).raise_for_status().json()
        stood = all(index["settings"].get(block) == "true" for index in found.values())
    finally:
        braid.store.put(settings, json={block: None}).raise_for_status()
    return (process.returncode, err) if stood else None


def test_a_full_disk_is_a_clear_error_and_a_rerun_finishes(braid: Braid, tmp_path: Path) -> None:
    # The node's disk monitor lifts the block every 30 s, since the disk has room: such a round proves nothing.
    for attempt in range(10):
        path = rows(tmp_path / f"full-{attempt}.jsonl", 20)
        if outcome := ingest_on_a_full_disk(braid, path):
            break
    assert outcome, "the block was lifted in every round"
    returncode, err = outcome
    assert returncode == 1
    assert "rejects writes" in err
    assert "disk" in err
    assert braid.ingest(str(path), "--source", path.stem)["new"] == 20
    assert braid.count(path.stem) == 20


def _pdf(**options: Any) -> bytes:
    out = io.BytesIO()
    page = canvas.Canvas(out, **options)
    page.drawString(72, 720, "Nobody can read this sentence without the password.")
    page.save()
    return out.getvalue()


def _bomb(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr(name, b"\0" * (600 * 1024 * 1024))
    return out.getvalue()


def test_files_that_can_not_go_in_are_named_and_all_others_go_in(braid: Braid, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "good.md").write_text("# Good\n\nThe good file goes in.\n")
    (folder / "locked.pdf").write_bytes(_pdf(encrypt=StandardEncryption("secret", ownerPassword="owner")))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    (folder / "empty.pdf").write_bytes(b"")
    (folder / "empty.txt").write_text(" \n")
    (folder / "bomb.docx").write_bytes(_bomb("word/document.xml"))
    (folder / "bomb.pptx").write_bytes(_bomb("ppt/slides/slide1.xml"))
    (folder / "picture.pdf").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    (folder / "program.exe").write_bytes(b"MZ" + bytes(range(256)))
    (folder / "bell\x07\x1b[31m.txt").write_text("The name rings.")
    (folder / "rows.jsonl").write_text('{"_id": "1", "text": "One row."}\nnot json\n{"_id": "2", "colour": "red"}\n')
    read = (
        "sales.xlsx",
        "c02_comma.csv",
        "e01_mail.eml",
        "memo.odt",
        "fees.ods",
        "slides.odp",
        "river.epub",
        "r01.rtf",
    )
    for name in read:
        shutil.copy(FILES / name, folder)
    report = braid.ingest(str(folder), code=1)
    assert report["new"] == 2 + len(read)
    assert "1 hidden sheets left out: Secret" in [item["detail"] for item in report["warnings"]]
    failed = {item["place"]: item["reason"] for item in report["failed"]}
    assert failed.keys() == {
        "mixed/locked.pdf",
        "mixed/broken.pdf",
        "mixed/empty.pdf",
        "mixed/empty.txt",
        "mixed/bomb.docx",
        "mixed/bomb.pptx",
        "mixed/picture.pdf",
        "mixed/program.exe",
        "mixed/bell\\x07\\x1b[31m.txt",
        "mixed/rows.jsonl:2",
        "mixed/rows.jsonl:3",
    }
    assert failed["mixed/locked.pdf"] == "encrypted"
    assert failed["mixed/bell\\x07\\x1b[31m.txt"] == "bad-name"
    assert all(item["detail"] and str(tmp_path) not in item["detail"] for item in report["failed"])
    assert braid.search("good file", "mixed")[0]["text"] == "The good file goes in."
    assert "12.5 %" in braid.search("share of North", "mixed")[0]["text"]


def test_sync_removes_nothing_where_it_can_not_know(braid: Braid, tmp_path: Path) -> None:
    folder = tmp_path / "unsure"
    folder.mkdir()
    rows(folder / "unsure.jsonl", 3)
    (folder / "more.txt").write_text("One more document.")
    assert braid.ingest(str(folder), "--sync")["new"] == 4
    (folder / "unsure.jsonl").write_text("{broken\n")
    report = braid.ingest(str(folder), "--sync", code=1)
    assert (report["deleted"], braid.count("unsure")) == (0, 4)
    assert "unsure.jsonl" in report["sync_skipped"]
