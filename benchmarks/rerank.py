"""How fast pairs are scored: by clients and pairs, against torch and FlashRank, and while overloaded. See rerank.md."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import harness
import httpx2
import numpy as np
import onnxruntime as ort
from rerank_models import write_model, write_weights
from tokenizers import Tokenizer

from app.config import load_settings
from app.embedding.model_folder import model_folder
from reranker.cross_encoder import CrossEncoder
from reranker.quantize import quantize_int8
from reranker.scheduler import MicroBatcher

SEED, SET, REQUESTS, PAIRS, CLIENTS = 7, "covidqa", 64, (20, 50), (1, 4, 16)
SHORTEST, LONGEST = 140, 230
"""Tokens of a passage, drawn evenly: a pair has some 200."""
ROUNDS = {1: 9, 4: 3, 16: 2}
"""Requests of each client."""
BUDGET_MS, OVERLOAD_S = 1000, 20
"""The budget is at least that, and at least what three requests take."""
METHOD = (
    f"Models of MiniLM-L6's shape (all-MiniLM-L6-v2's encoder, all 6 or the first 2 layers, and a pooler and a "
    f"classifier with random weights, seed {SEED}: speed only). {REQUESTS} requests: queries of {SET}, each with 50 "
    f"passages of the same set, cut to {SHORTEST}-{LONGEST} tokens (even, seed {SEED}), pairs cut at 256 tokens. "
    f"Clients send one request after the other, {ROUNDS} requests each; a cell ends early after its seconds are up. "
    "flashrank: its call imitated (pairs padded to the longest, one ONNX Runtime run with default options), its "
    "package not installed. in turn: one client, the same request to each of them one after the other, the order drawn "
    "anew each time: the one comparison that a machine whose speed drifts leaves fair. torch: sentence-transformers' "
    "CrossEncoder.predict, fp32, as it comes. Times in ms. "
    f"Overload: through the HTTP server, arrivals at random (Poisson) at twice the rate that 4 clients got in the "
    f"same run, for {OVERLOAD_S} s, 20 pairs each, timeout_ms {BUDGET_MS} (or three requests' time, if that is more)."
)

Request = tuple[str, list[str]]
Score = Callable[[str, list[str]], object]


def make_requests(tokenizer: Path) -> list[Request]:
    """Queries and passages of drawn lengths."""
    reader = Tokenizer.from_file(str(tokenizer))
    reader.no_truncation()
    reader.no_padding()
    generator = random.Random(SEED)
    passages = []
    for document in harness.corpus(SET):
        offsets = reader.encode(document["text"][: LONGEST * 12], add_special_tokens=False).offsets
        if len(offsets) >= LONGEST:
            passages.append(document["text"][: offsets[generator.randint(SHORTEST, LONGEST) - 1][1]])
        if len(passages) == 400:
            break
    queries = list(harness.queries(SET)[0].values())[:REQUESTS]
    return [(query, generator.sample(passages, max(PAIRS))) for query in queries]


def cell(score: Score, requests: Sequence[Request], pairs: int, clients: int, seconds: float) -> dict[str, Any]:
    """Closed loop: `clients` threads, each one request after the other."""
    score(requests[0][0], requests[0][1][:pairs])
    latencies: list[float] = []
    ends = time.perf_counter() + seconds

    def client(number: int) -> None:
        for turn in range(ROUNDS[clients]):
            query, documents = requests[(number * ROUNDS[clients] + turn) % len(requests)]
            began = time.perf_counter()
            score(query, documents[:pairs])
            latencies.append((time.perf_counter() - began) * 1000)
            if time.perf_counter() > ends:
                return

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return figures(latencies, time.perf_counter() - began, pairs)


def figures(latencies: Sequence[float], seconds: float, pairs: int) -> dict[str, Any]:
    return {**harness.percentiles(latencies), "pairs_per_second": round(len(latencies) * pairs / seconds, 1)}


def ours(folder: Path, requests: Sequence[Request], seconds: float) -> dict[str, Any]:
    model = CrossEncoder(folder, provider="cpu")
    batcher = MicroBatcher(model, max_pairs=1_000_000)
    found = {
        f"{pairs} pairs, {clients} clients": cell(
            lambda query, documents: batcher.score(query, documents, timeout_s=600), requests, pairs, clients, seconds
        )
        for pairs in PAIRS
        for clients in CLIENTS
    }
    batcher.close()
    return found


def flashrank_call(folder: Path) -> Score:
    """As `flashrank.Ranker.rerank` does it (0.2): everything in one batch, padded to its longest pair."""
    session = ort.InferenceSession(str(folder / "model.onnx"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length=256)
    tokenizer.enable_padding(pad_id=0)

    def score(query: str, documents: list[str]) -> object:
        encoded = tokenizer.encode_batch([[query, document] for document in documents])
        feed = {
            "input_ids": np.array([item.ids for item in encoded]).astype(np.int64),
            "attention_mask": np.array([item.attention_mask for item in encoded]).astype(np.int64),
            "token_type_ids": np.array([item.type_ids for item in encoded]).astype(np.int64),
        }
        return 1 / (1 + np.exp(-session.run(None, feed)[0].flatten()))

    return score


def flashrank(folder: Path, requests: Sequence[Request], seconds: float) -> dict[str, Any]:
    score = flashrank_call(folder)
    return {
        f"{pairs} pairs, {clients} clients": cell(score, requests, pairs, clients, seconds)
        for pairs in PAIRS
        for clients in (1, 4)
    }


class Torch:
    """sentence-transformers in a process of its own, with the weights of `folder`."""

    def __init__(self, python: str, folder: Path, requests: Sequence[Request], seconds: float, scratch: Path) -> None:
        weights = scratch / "weights.npz"
        write_weights(folder, weights)
        cells = [
            {"pairs": pairs, "clients": clients, "rounds": ROUNDS[clients], "seconds": seconds}
            for pairs in PAIRS
            for clients in (1, 4)
        ]
        given = {
            "model": str(folder),
            "weights": str(weights),
            "scratch": str(scratch),
            "threads": os.cpu_count(),
            "requests": requests,
            "cells": cells,
            "check": requests[0],
        }
        side = Path(__file__).parent / "rerank_torch.py"
        self._process = subprocess.Popen([python, str(side)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        found = self._ask(given)
        logits = CrossEncoder(folder, provider="cpu").score(*requests[0]).logits
        difference = float(np.abs(logits - np.array(found["check"]).flatten()).max())
        self.figures = {
            name: figures(found["cells"][name]["latencies"], found["cells"][name]["seconds"], one["pairs"])
            for one in cells
            for name in [f"{one['pairs']} pairs, {one['clients']} clients"]
        } | {"largest_difference_of_logits": round(difference, 6), "versions": found["versions"]}

    def milliseconds(self, number: int, pairs: int) -> float:
        """Of one request."""
        return float(self._ask([number, pairs]))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _ask(self, what: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def in_turn(contestants: dict[str, Callable[[int, int], float]], rounds: int) -> dict[str, Any]:
    """Every contestant scores the same request, one after the other, in a new order each time; one client, ms."""
    generator = random.Random(SEED)
    found: dict[str, Any] = {}
    for pairs in PAIRS:
        spent: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(rounds):
            for name in generator.sample(sorted(contestants), len(contestants)):
                spent[name].append(contestants[name](number, pairs))
        found[f"{pairs} pairs"] = {name: harness.percentiles(values) for name, values in spent.items()}
        if "torch fp32" in spent:
            found[f"{pairs} pairs, times as fast as torch fp32, median of the rounds"] = {
                name: round(statistics.median(np.array(spent["torch fp32"]) / np.array(values)), 2)
                for name, values in spent.items()
            }
    return found


def timed(score: Score, requests: Sequence[Request]) -> Callable[[int, int], float]:
    def run(number: int, pairs: int) -> float:
        query, documents = requests[number]
        began = time.perf_counter()
        score(query, documents[:pairs])
        return (time.perf_counter() - began) * 1000

    score(requests[0][0], requests[0][1])
    return run


def overload(folder: Path, requests: Sequence[Request]) -> dict[str, Any]:
    """Twice what it can do, through its server: what is accepted comes in time, the rest is told so at once."""
    command = [sys.executable, "-m", "reranker", "--model", str(folder), "--port", "0", "--provider", "cpu", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=harness.ROOT)
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    client = httpx2.Client(base_url=url, timeout=60, limits=httpx2.Limits(max_connections=256))

    def ask(number: int, timeout_ms: int) -> tuple[int, float]:
        query, documents = requests[number % len(requests)]
        body = {"query": query, "documents": documents[:20], "timeout_ms": timeout_ms}
        began = time.perf_counter()
        status = client.post("/v1/rerank", json=body).status_code
        return status, (time.perf_counter() - began) * 1000

    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: ask(number, 60_000), range(4)))
            began = time.perf_counter()
            list(pool.map(lambda number: ask(number, 60_000), range(16)))
            sustained = 16 / (time.perf_counter() - began)
        budget_ms = max(BUDGET_MS, round(3000 / sustained))
        generator = random.Random(SEED)
        calls = []
        with ThreadPoolExecutor(128) as pool:
            began = due = time.perf_counter()
            while due < began + OVERLOAD_S:
                time.sleep(max(0.0, due - time.perf_counter()))
                calls.append(pool.submit(ask, len(calls), budget_ms))
                due += generator.expovariate(2 * sustained)
            answers = [call.result() for call in calls]
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    accepted = sorted(milliseconds for status, milliseconds in answers if status == 200)
    refused = [milliseconds for status, milliseconds in answers if status == 429]
    return {
        "sustained_per_second": round(sustained, 2),
        "offered_per_second": round(2 * sustained, 2),
        "budget_ms": budget_ms,
        "sent": len(answers),
        "answers_by_status": {str(status): count for status, count in sorted(Counter(s for s, _ in answers).items())},
        "accepted_ms": {
            **harness.percentiles(accepted),
            "p99": round(accepted[int(0.99 * len(accepted))], 1),
            "max": round(accepted[-1], 1),
        },
        "accepted_per_second": round(len(accepted) / OVERLOAD_S, 2),
        "refused_ms": harness.percentiles(refused) if refused else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-python", help="an interpreter with sentence-transformers and torch")
    parser.add_argument("--seconds", type=float, default=6, help="after which a cell takes no new request")
    parser.add_argument("--rounds", type=int, default=11, help="of the comparison in turn")
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 2])
    parser.add_argument("--try-out", action="store_true", help="leave the result file as it is")
    arguments = parser.parse_args()
    load_before = [round(x, 1) for x in os.getloadavg()]
    began = time.perf_counter()
    source = model_folder(load_settings(embedding_model="all-MiniLM-L6-v2", embedding_precision="fp32"))
    results: dict[str, Any] = {}

    def note(name: str, found: dict[str, Any]) -> None:
        results[name] = found
        print(f"{time.perf_counter() - began:.0f} s: {name} {json.dumps(found)}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="braid-bench-") as folder:
        scratch, seconds = Path(folder), arguments.seconds
        requests = make_requests(source / "tokenizer.json")
        for layers in arguments.layers:
            fp32, int8 = scratch / f"L{layers}", scratch / f"L{layers}-int8"
            write_model(source, fp32, layers)
            quantize_int8(fp32, int8)
            note(f"L{layers} fp32", ours(fp32, requests, seconds))
            note(f"L{layers} int8", ours(int8, requests, seconds))
        name = f"L{arguments.layers[0]}"
        fp32, int8 = scratch / name, scratch / f"{name}-int8"
        note(f"{name} fp32, flashrank", flashrank(fp32, requests, seconds))
        note(f"{name} int8, flashrank", flashrank(int8, requests, seconds))
        contestants = {
            "ours fp32": timed(CrossEncoder(fp32, provider="cpu").score, requests),
            "ours int8": timed(CrossEncoder(int8, provider="cpu").score, requests),
            "flashrank fp32": timed(flashrank_call(fp32), requests),
            "flashrank int8": timed(flashrank_call(int8), requests),
        }
        if arguments.torch_python:
            torch = Torch(arguments.torch_python, fp32, requests, seconds, scratch)
            note(f"{name} fp32, torch", torch.figures)
            note(f"{name}, in turn", in_turn({**contestants, "torch fp32": torch.milliseconds}, arguments.rounds))
            torch.close()
        else:
            note(f"{name}, in turn", in_turn(contestants, arguments.rounds))
        note(f"overload, {name} int8", overload(int8, requests))
    took = round(time.perf_counter() - began)
    loads = {"load_average_before": load_before, "load_average_after": [round(x, 1) for x in os.getloadavg()]}
    if arguments.try_out:
        return
    harness.write_result("rerank", METHOD, {**loads, "took_s": took, **results})


if __name__ == "__main__":
    main()
