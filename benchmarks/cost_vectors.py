"""Vectors for the collections of cost.py, in a folder that is kept: `python benchmarks/cost_vectors.py FOLDER`.

The first `WHOLE` are encoded as Braid encodes them, about 45 ms of a processor each. The others stand
for the rest of a large collection, whose cost is what counts and not its answers: their vector is that of the text's
first `SHORT` tokens, their token vectors have the number that the whole text has, and random codes.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import harness
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(harness.ROOT))

from app.calibration import calibration_for
from app.config import load_settings
from app.config.service import MachineSettings
from app.embedding.encoder import Encoder
from app.embedding.token_vectors import TokenVectors, token_vectors_for
from app.passage import embedding_text
from app.provision.models import ensure_model

MODEL, PRECISION = "all-MiniLM-L6-v2", "int8"
WHOLE, SHORT, PART = 2_000, 32, 1_000


def load_model(max_tokens: int = 256) -> tuple[Encoder, TokenVectors]:
    """The embedding model of the benchmark, and the codec of its token vectors."""
    folder = ensure_model(MODEL, PRECISION, MachineSettings())
    encoder = Encoder(folder, name=f"{MODEL}-{PRECISION}", max_tokens=max_tokens)
    codec = token_vectors_for(calibration_for(load_settings().embedding, encoder.name), encoder.dimension)
    assert codec is not None
    return encoder, codec


def passages(size: int) -> list[dict[str, Any]]:
    """The first `size` rows of the largest set at hand."""
    return list(itertools.islice(harness.corpus("awsdocs"), size))


def _path(folder: Path, begin: int) -> Path:
    return folder / f"part-{begin // PART:03}.npz"


def fill(folder: Path, size: int) -> None:
    """Encode what the folder lacks of the first `size` passages."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = passages(size)
    (whole, codec), (short, _) = load_model(), load_model(SHORT)
    for begin in range(0, size, PART):
        if _path(folder, begin).is_file():
            continue
        part = rows[begin : begin + PART]
        texts = [embedding_text(row["title"], "", row["text"]) for row in part]
        if begin < WHOLE:
            vectors, packed = whole.encode_passages_with_tokens(texts, codec.pack)
        else:
            vectors = short.encode_passages([row["text"] for row in part])
            packed = [_random_codes(whole, codec, text, begin + place) for place, text in enumerate(texts)]
        aside = folder / "part.npz"
        lengths = [len(item) for item in packed]
        np.savez(aside, vectors=vectors, packed=np.frombuffer(b"".join(packed), np.uint8), lengths=lengths)
        aside.rename(_path(folder, begin))
        print(f"{begin + len(part)} of {size}", flush=True)


def _random_codes(encoder: Encoder, codec: TokenVectors, text: str, seed: int) -> bytes:
    """Token vectors as long as those of `text`, of random codes."""
    tokens = np.array(encoder._tokenizer.encode(text).ids, np.int64)
    random = np.random.default_rng(seed)
    return codec.pack(random.standard_normal((len(tokens), codec.width), np.float32), tokens)


def load(folder: Path, begin: int) -> list[tuple[npt.NDArray[np.float32], bytes]]:
    """Vector and packed token vectors of the `PART` passages from `begin`."""
    with np.load(_path(folder, begin)) as part:
        ends, data = np.cumsum(part["lengths"]), part["packed"].tobytes()
        packed = [data[end - size : end] for end, size in zip(ends, part["lengths"], strict=True)]
        return list(zip(part["vectors"], packed, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passages", type=int, default=128_350)
    arguments = parser.parse_args()
    fill(arguments.folder, arguments.passages)


if __name__ == "__main__":
    main()
