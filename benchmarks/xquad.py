"""Hybrid search and reranking on XQuAD, whole service, by `braid evaluate`: `python benchmarks/xquad.py`.

Method: xquad.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness

LANGUAGES = ("en", "de", "es", "zh", "ru", "ar")
WAYS = ("BM25", "dense", "linear 0.4", "linear 0.6", "learned", "learned + rerank")


def make_set(folder: Path, asked: str, held: str) -> Path:
    """Make a set of the questions of one language over the paragraphs of another; ids are the same in all."""
    made = folder / f"xquad-{asked}-over-{held}"
    made.mkdir()
    (made / "corpus.jsonl.gz").symlink_to(harness.SETS / f"xquad-{held}" / "corpus.jsonl.gz")
    for name in ("queries.jsonl.gz", "qrels.tsv"):
        (made / name).symlink_to(harness.SETS / f"xquad-{asked}" / name)
    return made


def evaluate(folder: Path, env: dict[str, str], reports: Path, queries: int) -> dict[str, float]:
    """Return the mean reciprocal rank of each way."""
    command = [sys.executable, "-m", "app.cli", "evaluate", str(folder), "--whole", "--queries", str(queries), "--json"]
    done = subprocess.run(
        [*command, "--out", str(reports)],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        cwd=harness.ROOT,
        check=True,
    )
    means = {way["name"]: way["means"]["MRR@10"] for way in json.loads(done.stdout)["ways"]}
    return {name: round(means[name], 3) for name in WAYS if name in means}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="multilingual-e5-small")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--calibration", type=Path, help="another calibration than the shipped one")
    parser.add_argument("--languages", nargs="+", default=LANGUAGES, choices=LANGUAGES)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--try-out", action="store_true", help="leave the result as it is")
    arguments = parser.parse_args()
    env = {
        "BRAID_EMBEDDING_MODEL": arguments.model,
        "BRAID_EMBEDDING_PRECISION": arguments.precision,
        "BRAID_LANGUAGES": ",".join(LANGUAGES),
    }
    if arguments.calibration is not None:
        env["BRAID_EMBEDDING_CALIBRATION"] = str(arguments.calibration.resolve())
    found: dict[str, Any] = {}
    with harness.open_folder() as scratch, harness.braid_up(env=env) as up:
        env["BRAID_DATA_DIR"] = up["data"]
        for asked in arguments.languages:
            for held in dict.fromkeys((asked, "en")):
                made = make_set(scratch, asked, held)
                name = asked if held == asked else f"{asked} over {held}"
                found[name] = evaluate(made, env, scratch / f"report-{made.name}", arguments.queries)
                print(name, found[name], flush=True)
    if not arguments.try_out:
        figures = {"model": f"{arguments.model}-{arguments.precision}", "queries a set": arguments.queries}
        harness.write_result("xquad", "benchmarks/xquad.md", {**figures, "mean reciprocal rank at 10": found})


if __name__ == "__main__":
    main()
