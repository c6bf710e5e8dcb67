"""A tiny cross-encoder for tests: a model folder of real files, made in a second, always the same.

``python tests/reranker_model.py FOLDER`` writes one. It is no trained model, but it ranks: a document scores by the
share of the query's words whose beginning (three letters) it holds, and a little by how often. Around that lies a
BERT of two small layers with random weights (seed 5), so that quantisation, padding and masks have something to act on.
Letters beyond a-z and 0-9 are unknown to it.
"""

from __future__ import annotations

import itertools
import json
import re
import string
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

SEED = 5
WIDTH, INNER, HEADS, LAYERS, PLACES = 64, 128, 4, 2, 512
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SEP = SPECIAL.index("[SEP]")
COMMON = frozenset(
    re.findall(
        r"\w+",
        "the a an of in on at to and or is are was were be by for with as it its this that what which who how when "
        "where why do does did can from not no i you he she we they",
    )
)
"""Words that don't count."""


def write_cross_encoder(
    folder: Path,
    *,
    name: str = "tiny-cross-encoder",
    max_tokens: int = 256,
    places: int = PLACES,
    labels: int = 1,
    token_types: bool = True,
    ids_type: int = TensorProto.INT64,
    settings: dict[str, object] | None = None,
) -> Path:
    """Write the model's folder.

    Args:
        folder: made if it is missing.
        name: in ``reranker.json``.
        max_tokens: likewise.
        places: longest input that the model runs on.
        labels: logits of a pair; a reranker has one.
        token_types: whether it has that input.
        ids_type: of the inputs, int64 or int32.
        settings: further fields of ``reranker.json``: weight, calibration, bound.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _vocabulary()
    _tokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    onnx.save(_model(vocabulary, places, labels, token_types, ids_type), folder / "model.onnx")
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": places,
        "num_labels": labels,
        "pad_token_id": 0,
        "vocab_size": len(vocabulary),
    }
    own = {"name": name, "max_tokens": max_tokens, "precision": "fp32", **(settings or {})}
    for file, body in (("config.json", config), ("reranker.json", own)):
        (folder / file).write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(f"# {name}\n\n{__doc__}", encoding="utf-8")
    return folder


def _vocabulary() -> dict[str, int]:
    letters, symbols = string.ascii_lowercase, string.ascii_lowercase + string.digits
    beginnings = ("".join(three) for three in itertools.product(letters, repeat=3))
    short = ["".join(two) for two in itertools.product(symbols, repeat=2)] + list(symbols)
    ends = [f"##{piece}" for piece in short]
    pieces = dict.fromkeys([*SPECIAL, *sorted(COMMON), *short, *ends, *beginnings, *string.punctuation])
    return {piece: index for index, piece in enumerate(pieces)}


def _tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = ((token, vocabulary[token]) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[cls, sep]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _embeddings(vocabulary: dict[str, int], generator: np.random.Generator) -> np.ndarray:
    """Directions at random; length 1 for what counts (a word's beginning), 0.3 for the rest, 0 for special tokens."""
    table = generator.normal(size=(len(vocabulary), WIDTH))
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    for piece, index in vocabulary.items():
        counts = piece.isalnum() and piece not in COMMON
        table[index] *= 0.0 if piece in SPECIAL else 1.0 if counts else 0.3
    return table.astype(np.float32)


class _Graph:
    """Collects nodes and weights; each method adds one node and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, values: object, kind: type = np.float32) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"/{output}/{operator}", **attributes))
        return output


def _model(vocabulary: dict[str, int], places: int, labels: int, token_types: bool, ids_type: int) -> onnx.ModelProto:
    generator = np.random.default_rng(SEED)
    graph = _Graph()
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if token_types else [])]
    table = graph.weight("bert.embeddings.word_embeddings.weight", _embeddings(vocabulary, generator))
    words = graph.add("Gather", [table, "input_ids"], "words")
    hidden = _positions(graph, words, places, generator)
    if token_types:
        segments = graph.weight(
            "bert.embeddings.token_type_embeddings.weight", generator.normal(size=(2, WIDTH)) * 1e-3
        )
        hidden = graph.add("Add", [hidden, graph.add("Gather", [segments, "token_type_ids"], "segments")], "embedded")
    attended = graph.add("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
    one = graph.weight("one", 1.0)
    away = graph.add("Mul", [graph.add("Sub", [attended, one], "unmasked"), graph.weight("much", 1e4)], "away")
    away = graph.add("Unsqueeze", [away, graph.weight("rows", [1], np.int64)], "away_rows")
    for layer in range(LAYERS):
        hidden = _layer(graph, hidden, away, f"bert.encoder.layer.{layer}", generator)
    _head(graph, hidden, attended, labels)
    made = helper.make_graph(
        graph.nodes,
        "tiny-cross-encoder",
        [helper.make_tensor_value_info(name, ids_type, ["batch", "length"]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])],
        graph.weights,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def _positions(graph: _Graph, words: str, places: int, generator: np.random.Generator) -> str:
    table = graph.weight("bert.embeddings.position_embeddings.weight", generator.normal(size=(places, WIDTH)) * 1e-3)
    axis = graph.weight("axis_1", 1, np.int64)
    length = graph.add("Gather", [graph.add("Shape", ["input_ids"], "shape"), axis], "length")
    zero, step = graph.weight("zero", 0, np.int64), graph.weight("step", 1, np.int64)
    rows = graph.add("Gather", [table, graph.add("Range", [zero, length, step], "places")], "positions")
    return graph.add("Add", [words, rows], "placed")


def _layer(graph: _Graph, hidden: str, away: str, name: str, generator: np.random.Generator) -> str:
    """Attention and a feed-forward part, each added to its input, both small enough to leave words recognisable."""

    def linear(inputs: str, part: str, rows: int, columns: int, scale: float) -> str:
        matrix = graph.weight(f"{name}.{part}.weight", generator.normal(size=(rows, columns)) * scale / rows**0.5)
        bias = graph.weight(f"{name}.{part}.bias", generator.normal(size=columns) * 0.01)
        return graph.add(
            "Add", [graph.add("MatMul", [inputs, matrix], f"{name}.{part}.product"), bias], f"{name}.{part}"
        )

    query, key, value = (
        linear(hidden, f"attention.self.{part}", WIDTH, WIDTH, 1.0) for part in ("query", "key", "value")
    )
    turned = graph.add("Transpose", [key], f"{name}.turned", perm=[0, 2, 1])
    weights = graph.add("Add", [graph.add("MatMul", [query, turned], f"{name}.similarity"), away], f"{name}.masked")
    weights = graph.add("Softmax", [weights], f"{name}.weights", axis=-1)
    context = graph.add("MatMul", [weights, value], f"{name}.context")
    hidden = graph.add(
        "Add", [hidden, linear(context, "attention.output.dense", WIDTH, WIDTH, 0.05)], f"{name}.attended"
    )
    inner = graph.add("Relu", [linear(hidden, "intermediate.dense", WIDTH, INNER, 1.0)], f"{name}.relu")
    return graph.add("Add", [hidden, linear(inner, "output.dense", INNER, WIDTH, 0.05)], f"{name}.out")


def _head(graph: _Graph, hidden: str, attended: str, labels: int) -> None:
    """8 * (share of the query's words found) - 4, and up to 1 for how often the document has them."""
    last = graph.weight("last", [2], np.int64)
    row, column = graph.weight("axis_row", [1], np.int64), graph.weight("axis_column", [2], np.int64)
    half, tiny, one = graph.weight("half", 0.5), graph.weight("tiny", 1e-6), "one"
    # the segment is what the separators say, so that it needs no token types
    separator = graph.add("Equal", ["ids64", graph.weight("sep", SEP, np.int64)], "is_separator")
    graph.nodes.insert(0, helper.make_node("Cast", ["input_ids"], ["ids64"], to=TensorProto.INT64))
    before = graph.add("Cast", [separator], "separators", to=TensorProto.FLOAT)
    before = graph.add("CumSum", [before, graph.weight("along", 1, np.int64)], "seen", exclusive=1)
    first = graph.add("Cast", [graph.add("Less", [before, half], "is_first")], "in_first", to=TensorProto.FLOAT)
    second = graph.add("Mul", [graph.add("Sub", [one, first], "not_first"), attended], "in_second")
    norms = graph.add("ReduceL2", ["words"], "norms", axes=[2], keepdims=0)
    counted = graph.add("Cast", [graph.add("Greater", [norms, half], "is_counted")], "counted", to=TensorProto.FLOAT)
    asked = graph.add("Mul", [first, counted], "asked")
    turned = graph.add("Transpose", [hidden], "hidden_turned", perm=[0, 2, 1])
    similar = graph.add("MatMul", [hidden, turned], "similar")
    found = graph.add("Relu", [graph.add("Sub", [similar, graph.weight("threshold", 0.6)], "over")], "found_all")
    for mask, axes in ((asked, column), (second, row)):
        found = graph.add("Mul", [found, graph.add("Unsqueeze", [mask, axes], f"{mask}_wide")], f"found_{mask}")
    best = graph.add("ReduceMax", [found], "best", axes=[2], keepdims=0)
    best = graph.add("Min", [graph.add("Mul", [best, graph.weight("scale", 2.5)], "best_scaled"), one], "best_capped")
    sums = {
        part: graph.add("ReduceSum", [values, axis], f"sum_{part}", keepdims=0)
        for part, values, axis in (
            ("best", best, row),
            ("asked", asked, row),
            ("found", graph.add("ReduceSum", [found, last], "found_rows", keepdims=0), row),
            ("second", second, row),
        )
    }
    share = graph.add("Div", [sums["best"], graph.add("Add", [sums["asked"], tiny], "asked_safe")], "share")
    often = graph.add("Div", [sums["found"], graph.add("Add", [sums["second"], tiny], "second_safe")], "often")
    scaled = graph.add("Mul", [share, graph.weight("eight", 8.0)], "share_scaled")
    score = graph.add("Add", [graph.add("Sub", [scaled, graph.weight("four", 4.0)], "centred"), often], "score")
    score = graph.add("Unsqueeze", [score, row], "score_column")
    weights = graph.weight("classifier.weight", np.ones((1, labels)))
    graph.add("MatMul", [score, weights], "logits")


if __name__ == "__main__":
    print(write_cross_encoder(Path(sys.argv[1])))
