"""Conversion of a BERT encoder in ONNX back to PyTorch for further training.

Exporters keep the names of biases, layer norms and embeddings. The weights of linear layers lose theirs, because they
are transposed for MatMul. They are found in the graph: each is the initialiser multiplied right before the bias with a
known name is added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reranker.errors import ModelFolderError

if TYPE_CHECKING:
    from transformers import BertModel

Arrays = dict[str, npt.NDArray[np.float32]]
_WORDS = "embeddings.word_embeddings.weight"
_HEAD_SIZE = 32
"""Head size of MiniLM and nearly every encoder of width 384; others must provide a config.json."""
_DROPPED = ("embeddings.position_ids",)


def load_bert(folder: Path) -> BertModel:
    """Load the encoder in `folder` (``model.onnx``, fp32; optionally ``config.json``) as a `transformers.BertModel`.

    An embedding model has no pooler: the pooler starts from random values (torch's generator).

    Raises:
        ModelFolderError: the file is missing, quantised or not a BERT graph; the message says what was expected.
    """
    import torch
    from transformers import BertConfig, BertModel

    arrays = read_weights(folder / "model.onnx")
    config = BertConfig(**_shape(arrays, folder))
    model = BertModel(config, add_pooling_layer=True)
    wanted = model.state_dict()
    state = {}
    for name, array in arrays.items():
        if name not in wanted:
            raise ModelFolderError(f"{folder}/model.onnx: {name} is not a weight of a BERT encoder")
        if tuple(wanted[name].shape) != array.shape:
            raise ModelFolderError(
                f"{folder}/model.onnx: {name} has shape {array.shape}, expected {tuple(wanted[name].shape)}"
            )
        state[name] = torch.from_numpy(np.ascontiguousarray(array))
    missing = [name for name in wanted if name not in state and not name.startswith(("pooler.", *_DROPPED))]
    if missing:
        raise ModelFolderError(f"{folder}/model.onnx: {len(missing)} weights are missing, such as {missing[0]}")
    model.load_state_dict(state, strict=False)
    return model.eval()


def read_weights(path: Path) -> Arrays:
    """Return parameter name of `transformers.BertModel` -> values; linear weights in torch's layout, (out, in).

    Raises:
        ModelFolderError: as `load_bert`.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    if not path.is_file():
        raise ModelFolderError(f"{path}: the file does not exist; expected a BERT encoder in ONNX, fp32")
    try:
        graph = onnx.load(str(path)).graph
    except DecodeError as error:
        raise ModelFolderError(f"{path}: not an ONNX file ({error})") from error
    quantised = sorted(
        {node.op_type for node in graph.node} & {"MatMulInteger", "QLinearMatMul", "DynamicQuantizeLinear"}
    )
    if quantised:
        raise ModelFolderError(f"{path}: it is quantised ({', '.join(quantised)}); training needs the fp32 model")
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    named = {_plain_name(name): name for name in values if name.rsplit(".", 1)[-1] in {"weight", "bias"}}
    if _WORDS not in named:
        raise ModelFolderError(f"{path}: no initialiser is called {_WORDS}; expected the graph of a BERT encoder")
    found = {plain: values[name].astype(np.float32) for plain, name in named.items()}
    multiplied = _weights_by_bias(graph, values)
    for plain, name in named.items():
        weight = plain.removesuffix(".bias") + ".weight"
        if plain.endswith(".bias") and weight not in found:
            if name not in multiplied:
                raise ModelFolderError(f"{path}: no MatMul feeds the addition of {plain}")
            found[weight] = multiplied[name].T.astype(np.float32)
    return found


def _plain_name(name: str) -> str:
    for prefix in ("bert.", "model.", "0.auto_model.", "auto_model."):
        name = name.removeprefix(prefix)
    return name


def _weights_by_bias(graph: Any, values: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Return name of a bias -> the (in, out) weight whose product it is added to."""
    products: dict[str, npt.NDArray[Any]] = {}
    for node in graph.node:
        if node.op_type == "MatMul":
            for name in node.input:
                if name in values:
                    products[node.output[0]] = values[name]
    found = {}
    for node in graph.node:
        if node.op_type == "Add":
            left, right = node.input
            for bias, product in ((left, right), (right, left)):
                if bias in values and product in products:
                    found[bias] = products[product]
    return found


def _shape(arrays: Arrays, folder: Path) -> dict[str, Any]:
    """Return the arguments of `BertConfig`, from config.json or else from the shapes of the weights."""
    file = folder / "config.json"
    if file.is_file():
        read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if "hidden_size" in read:
            return {name: value for name, value in read.items() if name not in {"architectures", "model_type"}}
    vocabulary, width = arrays[_WORDS].shape
    layers = {int(name.split(".")[2]) for name in arrays if name.startswith("encoder.layer.")}
    if width % _HEAD_SIZE:
        raise ModelFolderError(
            f"{folder}: the number of attention heads is unknown for width {width}: add the model's config.json "
            "to the folder"
        )
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // _HEAD_SIZE if width <= 384 else width // 64,
        "intermediate_size": arrays["encoder.layer.0.intermediate.dense.bias"].shape[0],
        "max_position_embeddings": arrays["embeddings.position_embeddings.weight"].shape[0],
        "type_vocab_size": arrays["embeddings.token_type_embeddings.weight"].shape[0],
    }
