"""int8 texts in batches and each alone: speed, and how far a vector moves with its neighbours. See int8_alone.md."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np

from app.config import load_settings
from app.embedding.encoder import ALONE, TOKENS_PER_THREAD, Encoder, load_encoder

MODELS = ("all-MiniLM-L6-v2", "bge-small-en-v1.5", "multilingual-e5-small")
THREADS, LEAST_CHARACTERS = 2, 300
METHOD = (
    "The first passages of covidqa with at least 300 characters, cut at 256 tokens, two threads, twice in turn, the "
    "better of the two. Processor time, which other work on the machine disturbs least. Cosine between the vector of a "
    "text in a batch and alone, the lowest of all."
)


def passages_per_second(encoder: Encoder, texts: Sequence[str]) -> tuple[float, np.ndarray]:
    """Passages in a second of the processor's time, and their vectors."""
    began = time.process_time()
    vectors = encoder.encode_passages(texts)
    return len(texts) / (time.process_time() - began), vectors


def measure(encoder: Encoder, texts: Sequence[str]) -> dict[str, Any]:
    ways = {"batched": TOKENS_PER_THREAD * THREADS, "alone": ALONE}
    chosen, speeds, vectors = encoder._budget, dict.fromkeys(ways, 0.0), {}
    for way, budget in [*ways.items(), *ways.items()]:
        encoder._budget = budget
        speed, vectors[way] = passages_per_second(encoder, texts)
        speeds[way] = max(speeds[way], round(speed, 1))
    lowest = float((vectors["batched"] * vectors["alone"]).sum(axis=1).min())
    return {
        "passages_per_cpu_second": speeds,
        "lowest_cosine": round(lowest, 4),
        "chosen": "alone" if chosen == ALONE else "batched",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--passages", type=int, default=96)
    parser.add_argument("--cache", type=Path, help="the cache folder with models/; default: the service's own")
    arguments = parser.parse_args()
    texts = [item["text"] for item in harness.corpus("covidqa") if len(item["text"]) >= LEAST_CHARACTERS]
    results = {}
    for name in arguments.model:
        for precision in ("fp32", "int8"):
            encoder = load_encoder(
                load_settings(
                    embedding_model=name,
                    embedding_precision=precision,
                    embedding_provider="cpu",
                    embedding_max_tokens=256,
                    embedding_threads=THREADS,
                    cache_dir=arguments.cache,
                )
            )
            results[encoder.name] = measure(encoder, texts[: arguments.passages])
            print(encoder.name, results[encoder.name], file=sys.stderr, flush=True)
    harness.write_result("int8_alone", METHOD, {"passages": arguments.passages, "results": results})


if __name__ == "__main__":
    main()
