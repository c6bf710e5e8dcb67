"""Every way of a model on a GPU, in less than eight minutes; says "not run" where there is none. See gpu.md."""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import numpy as np
import onnxruntime as ort
from rerank_models import write_model, write_weights
from tokenizers import Tokenizer

from app.config import load_settings
from app.embedding.convert import convert_to_fp16
from app.embedding.encoder import Encoder
from app.errors import BraidError
from app.provision.models import ensure_model
from reranker.cross_encoder import CrossEncoder
from reranker.errors import RerankerError
from reranker.quantize import convert_fp16, quantize_int8
from reranker.runtime.session import (
    RUNTIME_ERRORS,
    ProviderUnusable,
    WantedProvider,
    first_usable,
    installed_builds,
    provider_options,
    run_bound,
    session_options,
)

SEED, MODEL, TOKENS, TEXTS, QUERIES = 7, "all-MiniLM-L6-v2", 200, 512, 50
BATCHES = (1, 8, 32, 128, 512)
LAYERS, PAIRS, VOCABULARY = 6, 50, 30_000
TENSORRT_S = 150.0
"""Seconds that must be left for TensorRT, which builds an engine first."""
METHOD = (
    f"{MODEL} as the encoder, and its {LAYERS} layers with a head of random weights as the cross-encoder (speed only), "
    f"each in fp32, fp16 and int8. Texts of {TOKENS} tokens, cut from this repository's pages at random (seed {SEED}). "
    f"as served: Encoder.encode_query ({QUERIES} queries, one after the other), encode_passages ({TEXTS} in one call), "
    f"and CrossEncoder.score ({PAIRS} documents a query); alike: the smallest cosine, or the largest difference of "
    f"logits, to the same texts in fp32 on the CPU. by batch: one session's run on n texts of {TOKENS} random tokens, "
    "plain and with IO binding (inputs on the device, output copied back); torch: the same weights and token ids "
    "through transformers on the same device, result copied back. A cell runs until its seconds are up, at least "
    "twice, after one run that does not count."
)

FAILURES = (*RUNTIME_ERRORS, RuntimeError, MemoryError, BraidError, RerankerError)
"""Of ONNX Runtime, of torch, and ours."""

Figures = dict[str, Any]


class Clock:
    """The time of the whole run: cells that would begin after it are not run."""

    def __init__(self, minutes: float, cell_s: float) -> None:
        self._end = time.monotonic() + minutes * 60
        self.cell_s = cell_s

    @property
    def left_s(self) -> float:
        """Seconds left."""
        return self._end - time.monotonic()

    def cell(self, call: Callable[[], object], texts: int) -> Figures | str:
        """Return milliseconds of a call and texts a second."""
        if self.left_s <= 0:
            return "not run: the time was up"
        call()
        spent: list[float] = []
        while len(spent) < 2 or (sum(spent) < self.cell_s and self.left_s > 0):
            began = time.perf_counter()
            call()
            spent.append(time.perf_counter() - began)
        return {
            "ms": harness.percentiles([seconds * 1000 for seconds in spent]),
            "texts_per_second": round(texts * len(spent) / sum(spent), 1),
        }


def make_texts(tokenizer: Path, count: int) -> list[str]:
    """Return texts of `TOKENS` tokens, cut from the pages of this repository at random."""
    reader = Tokenizer.from_file(str(tokenizer))
    reader.no_truncation()
    reader.no_padding()
    whole = " ".join(path.read_text(encoding="utf-8") for path in sorted((harness.ROOT / "docs").glob("*.md")))
    offsets = reader.encode(whole, add_special_tokens=False).offsets
    starts = random.Random(SEED).choices(range(len(offsets) - TOKENS), k=count)
    return [whole[offsets[start][0] : offsets[start + TOKENS - 1][1]] for start in starts]


def make_folders(fp32: Path, int8: Path, scratch: Path) -> dict[str, dict[str, Path]]:
    """Return the folders of both models in each precision."""
    convert_to_fp16(fp32, scratch / "encoder-fp16")
    pairs = write_model(fp32, scratch / "pairs", LAYERS)
    convert_fp16(pairs, scratch / "pairs-fp16")
    quantize_int8(pairs, scratch / "pairs-int8")
    return {
        "encoder": {"fp32": fp32, "fp16": scratch / "encoder-fp16", "int8": int8},
        "cross-encoder": {"fp32": pairs, "fp16": scratch / "pairs-fp16", "int8": scratch / "pairs-int8"},
    }


def encoder_served(folder: Path, provider: Any, texts: list[str], clock: Clock, expected: np.ndarray) -> Figures:
    """Measure the encoder as the service runs it."""
    encoder = Encoder(folder, name=MODEL, provider=provider)
    queries = [text[:60] for text in texts[:QUERIES]]
    found = encoder.encode_passages(texts[: len(expected)])
    return {
        "query": clock.cell(lambda: [encoder.encode_query(text) for text in queries], len(queries)),
        "passages": clock.cell(lambda: encoder.encode_passages(texts), len(texts)),
        "smallest_cosine": round(float((found * expected).sum(axis=1).min()), 5),
    }


def pairs_served(folder: Path, provider: Any, texts: list[str], clock: Clock, expected: np.ndarray) -> Figures:
    """Measure the cross-encoder as the service runs it."""
    model = CrossEncoder(folder, provider=provider)
    documents = texts[:PAIRS]
    found = model.score(texts[-1][:60], texts[: len(expected)]).logits
    return {
        "pairs": clock.cell(lambda: model.score(texts[-1][:60], documents), len(documents)),
        "largest_difference": round(float(np.abs(found - expected).max()), 4),
    }


def feed_of(session: Any, count: int) -> dict[str, np.ndarray]:
    """Return inputs of `count` texts of random tokens."""
    ids = np.random.default_rng(SEED).integers(5, VOCABULARY, (count, TOKENS))
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {
        node.name: values[node.name].astype(np.int32 if node.type == "tensor(int32)" else np.int64)
        for node in session.get_inputs()
    }


def by_batch(folder: Path, wanted: WantedProvider, clock: Clock) -> Figures:
    """Measure runs of one session by batch size, plain and bound."""
    session, provider = first_usable(
        folder / "model.onnx", wanted, session_options(0), lambda name: [provider_options(name)]
    )
    device = "cuda" if provider == "cuda" else "cpu"
    output = session.get_outputs()[0].name
    found: Figures = {}
    for count in BATCHES:
        feed = feed_of(session, count)
        found[str(count)] = {
            "plain": clock.cell(lambda feed=feed: session.run([output], feed), count),
            "bound": clock.cell(lambda feed=feed: run_bound(session, feed, output, device=device), count),
        }
    return found


def torch_by_batch(fp32: Path, scratch: Path, wanted: WantedProvider, clock: Clock) -> Figures | str:
    """Measure torch with the cross-encoder's weights: its encoder alone, and all of it."""
    try:
        import torch
        from rerank_torch import export
        from transformers import AutoModelForSequenceClassification
    except ImportError as error:
        return f"not run: {error.name} is not installed (`make train`)"
    device = "cuda" if wanted == "cuda" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        return "not run: torch finds no GPU"
    torch.backends.cuda.matmul.allow_tf32 = False
    write_weights(fp32, scratch / "weights.npz")
    export(fp32, scratch / "weights.npz", scratch / "hf")
    found: Figures = {}
    for precision, kind in (("fp32", torch.float32), ("fp16", torch.float16)):
        if precision == "fp16" and device == "cpu":
            found[precision] = "not run: fp16 is for GPUs"
            continue
        model = AutoModelForSequenceClassification.from_pretrained(scratch / "hf", dtype=kind).to(device).eval()
        ways = {"encoder": model.bert, "cross-encoder": model}
        found[precision] = {name: _torch_cells(torch, way, device, clock) for name, way in ways.items()}
    return found


def _torch_cells(torch: Any, model: Any, device: str, clock: Clock) -> Figures:
    def call(ids: np.ndarray) -> Any:
        with torch.inference_mode():
            sent = torch.from_numpy(ids).to(device)
            return model(input_ids=sent, attention_mask=torch.ones_like(sent))[0].cpu()

    rows = {count: np.random.default_rng(SEED).integers(5, VOCABULARY, (count, TOKENS)) for count in BATCHES}
    return {str(count): clock.cell(lambda ids=ids: call(ids), count) for count, ids in rows.items()}


def tensorrt(folder: Path, texts: list[str], clock: Clock, expected: np.ndarray) -> Figures | str:
    """Measure the cross-encoder on TensorRT, which only it can use."""
    if "TensorrtExecutionProvider" not in ort.get_available_providers():
        return "not run: this build of ONNX Runtime has no TensorRT"
    if clock.left_s < TENSORRT_S:
        return f"not run: an engine takes minutes to build, and {max(0, math.floor(clock.left_s))} s were left"
    return attempt(lambda: pairs_served(folder, "tensorrt", texts, clock, expected))


def attempt(measure: Callable[[], Figures]) -> Figures | str:
    """Return the figures, or why there are none: what fails on one machine must not cost the other figures."""
    try:
        return measure()
    except FAILURES as error:
        return f"failed: {type(error).__name__}: {str(error)[:300]}"


def unusable(model: Path, wanted: WantedProvider) -> str | None:
    """Return why nothing can run on the provider; None: it can."""
    try:
        first_usable(model, wanted, session_options(1), lambda name: [provider_options(name)])
    except ProviderUnusable as error:
        return f"not run: the provider {wanted!r} {error}"
    return None


def measure(wanted: WantedProvider, folders: dict[str, dict[str, Path]], scratch: Path, clock: Clock) -> Figures:
    """Return all figures of a provider, the most wanted first."""
    texts = make_texts(folders["encoder"]["fp32"] / "tokenizer.json", TEXTS)
    here = Encoder(folders["encoder"]["fp32"], name=MODEL, provider="cpu").encode_passages(texts[:16])
    scored = CrossEncoder(folders["cross-encoder"]["fp32"], provider="cpu").score(texts[-1][:60], texts[:16]).logits
    found: Figures = {
        "as served": {"encoder": {}, "cross-encoder": {}},
        "by batch": {"encoder": {}, "cross-encoder": {}},
    }
    for precision, folder in folders["encoder"].items():
        found["as served"]["encoder"][precision] = attempt(
            lambda folder=folder: encoder_served(folder, wanted, texts, clock, here)
        )
    for precision, folder in folders["cross-encoder"].items():
        found["as served"]["cross-encoder"][precision] = attempt(
            lambda folder=folder: pairs_served(folder, wanted, texts, clock, scored)
        )
    found["torch"] = attempt(
        lambda: {"cells": torch_by_batch(folders["cross-encoder"]["fp32"], scratch, wanted, clock)}
    )
    found["tensorrt"] = (
        tensorrt(folders["cross-encoder"]["fp32"], texts, clock, scored) if wanted == "cuda" else "not run: no GPU"
    )
    for kind, name, folder in _all(folders):
        found["by batch"][kind][name] = attempt(lambda folder=folder: by_batch(folder, wanted, clock))
    return found


def _all(folders: dict[str, dict[str, Path]]) -> Iterator[tuple[str, str, Path]]:
    for kind, by_precision in folders.items():
        for precision, folder in by_precision.items():
            yield kind, precision, folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", default="cuda", choices=("cuda", "openvino", "cpu"))
    parser.add_argument("--minutes", type=float, default=7.0, help="cells that would begin later are not run")
    parser.add_argument("--cell-seconds", type=float, default=1.5)
    parser.add_argument("--dry", action="store_true", help="print the figures and leave no file")
    given = parser.parse_args()
    clock = Clock(given.minutes, given.cell_seconds)
    machine = load_settings().machine
    fp32, int8 = (ensure_model(MODEL, precision, machine) for precision in ("fp32", "int8"))
    reason = unusable(fp32 / "model.onnx", given.provider)
    if reason is not None:
        print(reason)
        return
    with tempfile.TemporaryDirectory(prefix="braid-bench-") as folder:
        scratch = Path(folder)
        figures = {given.provider: measure(given.provider, make_folders(fp32, int8, scratch), scratch, clock)}
    figures |= {"builds": installed_builds(), "providers": ort.get_available_providers()}
    if given.dry:
        print(figures)
    else:
        harness.write_result(f"gpu-{given.provider}", METHOD, figures)


if __name__ == "__main__":
    main()
