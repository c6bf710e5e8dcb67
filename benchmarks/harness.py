"""What the benchmarks share: the running service, the data sets, percentiles, result files."""

from __future__ import annotations

import gzip
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # most scripts need none of these
    from app.evaluation.dataset import JudgedSet
    from app.evaluation.scratch import ScratchIndex
    from app.serving.opening import Store

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SETS = ROOT.parent / "shared" / "data" / "sets"
QRELS = {"scifact": "qrels.train.tsv"}
"""Judgements of another name than ``qrels.tsv``: of SciFact only the train split is at hand."""


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that every account can enter: root starts OpenSearch under another one."""
    with tempfile.TemporaryDirectory(prefix="braid-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def braid_up(
    *arguments: str, env: dict[str, str] | None = None, data: Path | None = None, root: Path = ROOT
) -> Iterator[dict[str, Any]]:
    """A `braid up` of its own on free ports, its data in a temporary folder; yields its line of addresses.

    Those of OpenSearch and Redis come with user and password in them. `root` is the worktree that runs.
    """
    from app.dev import state

    with open_folder() as scratch:
        folder = data or scratch / "data"
        command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data", str(folder), "--json", *arguments]
        environment = {**os.environ, **(env or {}), "PYTHONPATH": str(root)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, env=environment)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"braid up ended with code {process.wait()}")
        try:
            here = state.read(folder)
            assert here is not None
            reached = {"opensearch_url": here.opensearch_login, "redis_url": here.redis_url}
            yield {**json.loads(line), **reached, "data": str(folder)}
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def corpus_file(name: str) -> Path:
    """The corpus of a set in BEIR's form."""
    path = SETS / name / "corpus.jsonl.gz"
    if not path.is_file():
        raise SystemExit(f"the data set {name!r} is not at hand: {path}")
    return path


def corpus(name: str) -> list[dict[str, Any]]:
    with gzip.open(corpus_file(name), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def queries(name: str) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """The judged queries of a set and their judgements: {query id: text}, {query id: {document id: grade}}."""
    judged: dict[str, dict[str, int]] = {}
    with open(SETS / name / QRELS.get(name, "qrels.tsv"), encoding="utf-8") as lines:
        for line in lines:
            query, document, grade = line.split()
            if grade.lstrip("-").isdigit():
                judged.setdefault(query, {})[document] = int(grade)
    with gzip.open(SETS / name / "queries.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = (json.loads(line) for line in lines)
        texts = {row["_id"]: row["text"] for row in rows if row["_id"] in judged}
    return texts, judged


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50 and p95 (ms, or whatever the unit is), and how many."""
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 3),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 3),
        "n": len(ordered),
    }


def write_result(name: str, method: str, figures: dict[str, Any]) -> None:
    """Leave ``benchmarks/results/<name>.json`` with the figures, how they were got, and on what."""
    from reranker.runtime.session import installed_builds

    RESULTS.mkdir(exist_ok=True)
    packages = (*installed_builds(), "opensearch-py", "flask", "gunicorn", "numpy")
    body = {
        "method": method,
        "date": time.strftime("%Y-%m-%d"),
        "revision": _revision(),
        "machine": {"cores": os.cpu_count(), "cpu": _cpu(), "python": platform.python_version()},
        "versions": {package: version(package) for package in packages},
        **figures,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2, ensure_ascii=False))


def _revision() -> str | None:
    """The commit that was measured, with ``-dirty`` where files differ from it; None outside of a repository."""
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return done.stdout.strip() or None


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def indexed(judged: JudgedSet, store: Store) -> ScratchIndex:
    """The index of a judged set, its rows as passages; made where there is none."""
    from app.evaluation.scratch import prepare
    from app.ingest.progress import IngestProgress

    return prepare(
        judged,
        settings=store.settings,
        cluster=store.cluster,
        rendered=store.rendered,
        encoder=store.encoder,
        whole=True,
        progress=IngestProgress(),
    )
