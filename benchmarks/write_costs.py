"""What a write costs, now and before: `python benchmarks/write_costs.py`. Method: write_costs.md.

Both sides work on one node, each in indexes of its own, in turn, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import harness
import psutil

sys.path.insert(0, str(harness.ROOT))

from app.config import load_settings
from app.dev.node import start_cluster

BEFORE = "fa93137"
SIZES = {"1 passage": 4, "14 passages": 340}
"""Sentences of nine tokens each."""


class Side:
    """A process with one of the two codes."""

    def __init__(self, root: Path, url: str, name: str) -> None:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("BRAID_")}
        env = {**inherited, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, str(harness.ROOT / "benchmarks" / "write_side.py"), url, name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=root)

    def do(self, what: str, **arguments: Any) -> Any:
        """Have it do something; its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a side ended with code {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """A worktree of another commit."""
    with harness.open_folder() as folder:
        path = folder / "before"
        subprocess.run(["git", "worktree", "add", "--detach", str(path), revision], cwd=harness.ROOT, check=True)
        try:
            yield path
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(path)], cwd=harness.ROOT, check=True)


def node_cpu_s() -> float:
    """Processor time of the OpenSearch node, a child of this process."""
    java = [process for process in psutil.Process().children(recursive=True) if "java" in process.name()]
    return sum(sum(process.cpu_times()[:2]) for process in java)


def corpus(path: Path, count: int) -> None:
    """Small documents, as JSON Lines."""
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            text = f"Document {n} holds a few words. " * 8
            file.write(json.dumps({"document_id": f"c{n}", "title": f"Number {n}", "text": text}) + "\n")


def single(sides: dict[str, Side], blocks: int, count: int) -> dict[str, Any]:
    """Requests and times of single writes."""
    found: dict[str, Any] = {}
    for size, sentences in SIZES.items():
        took: dict[str, dict[str, list[tuple[float, int]]]] = {name: {} for name in sides}
        for block in range(blocks):
            for name in list(sides)[:: 1 if block % 2 else -1]:
                block_found = sides[name].do(
                    "documents", block=f"b{block}-{sentences}", count=count, sentences=sentences
                )
                for what, rows in block_found.items():
                    took[name].setdefault(what, []).extend(rows)
        found[size] = {
            what: {
                name: {
                    "requests": statistics.median_low([requests for _, requests in rows[what]]),
                    "ms": harness.percentiles([ms for ms, _ in rows[what]]),
                }
                for name, rows in took.items()
            }
            for what in ("new", "replacing", "patch", "delete")
        }
    return found


def ingests(sides: dict[str, Side], runs: int, count: int, folder: Path) -> dict[str, Any]:
    """Ingests of many small documents, and of the same once more."""
    path = folder / "documents.jsonl"
    corpus(path, count)
    took: dict[str, dict[str, list[dict[str, Any]]]] = {name: {"ingest": [], "rerun": []} for name in sides}
    for run in range(runs):
        for name in list(sides)[:: 1 if run % 2 else -1]:
            sides[name].do("fresh", number=run + 1)
            for what in ("ingest", "rerun"):
                time.sleep(2)  # what merges and collects garbage of the last one is done
                before = node_cpu_s()
                report = sides[name].do("ingest", path=str(path))
                report["node_cpu_s"] = node_cpu_s() - before
                assert report["new" if what == "ingest" else "unchanged"] == count, report
                took[name][what].append(report)
                print(run, name, what, report, file=sys.stderr)
            sides[name].do("drop")
    found: dict[str, Any] = {"documents": count, "runs": runs}
    for what in ("ingest", "rerun"):
        found[what] = {
            name: {
                "documents_per_second": round(count / statistics.median(row["seconds"] for row in rows[what])),
                "of_runs": [round(count / row["seconds"]) for row in rows[what]],
                "cpu_s": round(statistics.median(row["cpu_s"] for row in rows[what]), 2),
                "node_cpu_s": round(statistics.median(row["node_cpu_s"] for row in rows[what]), 2),
                "requests": rows[what][0]["requests"],
            }
            for name, rows in took.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--count", type=int, default=20, help="documents a block")
    parser.add_argument("--runs", type=int, default=3, help="ingests")
    parser.add_argument("--documents", type=int, default=10_000)
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(harness.open_folder())
        node = stack.enter_context(start_cluster(load_settings().machine, data_dir=folder / "node"))
        sides = {
            "before": Side(stack.enter_context(checkout(BEFORE)), node.url, "costs-before"),
            "now": Side(harness.ROOT, node.url, "costs-now"),
        }
        for side in sides.values():
            stack.callback(side.close)
            side.do("fresh", number=0)
            side.do("documents", block="warm", count=asked.count, sentences=4)
        figures = {
            "compared_with": BEFORE,
            "single": single(sides, asked.blocks, asked.count),
            "ingest": ingests(sides, asked.runs, asked.documents, folder),
        }
        harness.write_result("write_costs", "benchmarks/write_costs.md", figures)


if __name__ == "__main__":
    main()
