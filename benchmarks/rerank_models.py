"""Cross-encoders of MiniLM's shape, for speed only: the encoder at hand, cut to some layers, with a random head."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SEED = 7
WIDTH = 384
CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "hidden_size": WIDTH,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "num_labels": 1,
    "id2label": {"0": "relevance"},
    "label2id": {"relevance": 0},
}
_LAST = "/encoder/layer.{}/output/LayerNorm/Add_1"
_PRODUCT = re.compile(r"^/(encoder/layer\.\d+/[a-zA-Z_/]+)/MatMul$")


def write_model(source: Path, target: Path, layers: int) -> Path:
    """The first `layers` layers of the encoder in `source`, and BERT's pooler and classifier with random weights."""
    model = onnx.load(source / "model.onnx")
    graph = model.graph
    names = [node.name for node in graph.node]
    end = names.index(_LAST.format(layers - 1))
    del graph.node[end + 1 :]
    hidden = graph.node[end].output[0]
    generator = np.random.default_rng(SEED)
    head = {
        "bert.pooler.dense.weight": generator.normal(size=(WIDTH, WIDTH)) * WIDTH**-0.5,
        "bert.pooler.dense.bias": np.zeros(WIDTH),
        "classifier.weight": generator.normal(size=(1, WIDTH)) * 0.2,
        "classifier.bias": np.zeros(1),
    }
    graph.initializer.extend(numpy_helper.from_array(values.astype(np.float32), name) for name, values in head.items())
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "cls_place"))
    graph.node.extend(
        [
            helper.make_node("Gather", [hidden, "cls_place"], ["cls"], name="/pooler/Gather", axis=1),
            helper.make_node("Gemm", ["cls", *list(head)[:2]], ["pooled"], name="/pooler/dense/Gemm", transB=1),
            helper.make_node("Tanh", ["pooled"], ["active"], name="/pooler/Tanh"),
            helper.make_node("Gemm", ["active", *list(head)[2:]], ["logits"], name="/classifier/Gemm", transB=1),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1]))
    used = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    target.mkdir(parents=True)
    onnx.save(model, target / "model.onnx")
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    for name, body in (
        ("config.json", {**CONFIG, "num_hidden_layers": layers}),
        ("reranker.json", {"name": f"MiniLM-L{layers}-random-head", "max_tokens": 256, "precision": "fp32"}),
    ):
        (target / name).write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    return target


def write_weights(folder: Path, target: Path) -> None:
    """The model's weights as an npz under the names of `transformers.BertForSequenceClassification`."""
    graph = onnx.load(folder / "model.onnx").graph
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    weights = {
        name if name.startswith(("bert.", "classifier.")) else f"bert.{name}": array
        for name, array in values.items()
        if name.startswith(("embeddings.", "encoder.", "bert.", "classifier.")) and not name.endswith("position_ids")
    }
    for node in graph.node:
        found = _PRODUCT.match(node.name)
        if found and node.op_type == "MatMul" and node.input[1] in values:
            # exporters turn a linear layer's matrix and lose its name
            weights[f"bert.{found.group(1).replace('/', '.')}.weight"] = values[node.input[1]].T
    np.savez(target, **weights)
