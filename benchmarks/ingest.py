"""Passages per second from files to the store, by stage: `python benchmarks/ingest.py`. Method: ingest.md."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness

DOCS = harness.ROOT.parent / "shared" / "data" / "docs"


def ingest(data: Path, path: Path, source: str, **environment: str) -> dict[str, Any]:
    """One run of `braid ingest`; its own report."""
    command = [sys.executable, "-m", "app.cli", "ingest", str(path), "--source", source, "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=harness.ROOT,
        env={**os.environ, "BRAID_DATA_DIR": str(data), **environment}, check=False,
    )  # fmt: skip
    if not done.stdout:
        raise SystemExit(done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    inputs = {
        "PDF papers (8 files)": DOCS / "aragog",
        "Word, slides, HTML, PDF (111 files)": DOCS,
        "JSON Lines (1,400 abstracts)": harness.corpus_file("cranfield"),
    }
    figures: dict[str, Any] = {}
    for name, path in inputs.items():
        reports = []
        for _ in range(arguments.runs):
            # a data folder of its own, so that nothing is skipped as unchanged
            with harness.braid_up() as up:
                reports.append(ingest(Path(up["data"]), path, "bench"))
                again = ingest(Path(up["data"]), path, "bench")
        middle = statistics.median_low([report["passages_per_second"] for report in reports])
        report = next(report for report in reports if report["passages_per_second"] == middle)
        figures[name] = {
            "passages": report["passages"],
            "passages_per_second": middle,
            "of runs": [report["passages_per_second"] for report in reports],
            "seconds": report["seconds"],
            "bound": report["bound"],
            "busy_share_per_worker": {
                stage: round(about["busy_seconds"] / about["workers"] / report["seconds"], 3)
                for stage, about in report["stages"].items()
            },
            "second run, nothing changed, seconds": again["seconds"],
        }
        print(name, json.dumps(figures[name]), flush=True)
    harness.write_result("ingest", "benchmarks/ingest.md", {"inputs": figures})


if __name__ == "__main__":
    main()
