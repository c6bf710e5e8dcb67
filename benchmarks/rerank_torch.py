"""The sentence-transformers side of `rerank.py`, in an environment of its own: its `CrossEncoder`, same weights."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast


def export(source: Path, weights: Path, target: Path) -> None:
    """A Hugging Face folder of the model's weights."""
    config = BertConfig(**json.loads((source / "config.json").read_text()))
    model = BertForSequenceClassification(config)
    arrays = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in np.load(weights).items()}
    lost = model.load_state_dict(arrays, strict=False)
    assert not lost.unexpected_keys, lost
    assert not [name for name in lost.missing_keys if not name.endswith("position_ids")], lost
    model.save_pretrained(target)
    named = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = BertTokenizerFast(tokenizer_file=str(source / "tokenizer.json"), model_max_length=256, **named)
    tokenizer.save_pretrained(target)


def main() -> None:
    given = json.loads(sys.stdin.readline())
    source, folder = Path(given["model"]), Path(given["scratch"]) / "hf"
    export(source, Path(given["weights"]), folder)
    torch.set_num_threads(given["threads"])
    model = CrossEncoder(str(folder), device="cpu", max_length=256)
    requests = given["requests"]

    def score(query: str, documents: list[str]) -> np.ndarray:
        return model.predict(
            [(query, document) for document in documents], activation_fn=torch.nn.Identity(), show_progress_bar=False
        )

    checked = score(*given["check"]).tolist()
    cells = {}
    for cell in given["cells"]:
        score(requests[0][0], requests[0][1][: cell["pairs"]])
        latencies: list[float] = []
        ends = time.perf_counter() + cell["seconds"]

        def client(
            number: int, cell: dict[str, int] = cell, ends: float = ends, latencies: list[float] = latencies
        ) -> None:
            for turn in range(cell["rounds"]):
                query, documents = requests[(number * cell["rounds"] + turn) % len(requests)]
                began = time.perf_counter()
                score(query, documents[: cell["pairs"]])
                latencies.append((time.perf_counter() - began) * 1000)
                if time.perf_counter() > ends:
                    return

        threads = [threading.Thread(target=client, args=(number,)) for number in range(cell["clients"])]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        cells[f"{cell['pairs']} pairs, {cell['clients']} clients"] = {"latencies": latencies, "seconds": seconds}
    versions = {name: version(name) for name in ("torch", "sentence-transformers", "transformers")}
    print(json.dumps({"check": checked, "cells": cells, "versions": versions}), flush=True)
    for line in sys.stdin:  # one request after the other, as the other side takes turns with others
        number, pairs = json.loads(line)
        began = time.perf_counter()
        score(requests[number][0], requests[number][1][:pairs])
        print(json.dumps((time.perf_counter() - began) * 1000), flush=True)


if __name__ == "__main__":
    main()
