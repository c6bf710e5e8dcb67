"""Real ONNX models of a few nodes, for the forms that published models come in."""

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCABULARY = 30522
WIDTH = 4


def tiny_model(
    folder: Path,
    tokenizer: Path,
    *,
    output: str = "last_hidden_state",
    pooled: bool = False,
    table: np.ndarray | None = None,
    ids_type: int = TensorProto.INT64,
    extra_input: str | None = None,
) -> Path:
    """A model folder whose model looks each token up in `table` and, if `pooled`, takes the mean over all places."""
    if table is None:
        table = np.random.default_rng(7).normal(size=(VOCABULARY, WIDTH)).astype(np.float32)
    name = "hidden" if pooled else output
    nodes = [helper.make_node("Gather", ["table", "input_ids"], [name])]
    shape: list[str | int] = ["batch", "length", WIDTH]
    if pooled:
        nodes.append(helper.make_node("ReduceMean", ["hidden"], [output], axes=[1], keepdims=0))
        shape = ["batch", WIDTH]
    inputs = [helper.make_tensor_value_info("input_ids", ids_type, ["batch", "length"])]
    if extra_input:
        inputs.append(helper.make_tensor_value_info(extra_input, TensorProto.FLOAT, ["batch"]))
        nodes.append(helper.make_node("Identity", [extra_input], ["unused"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
        + ([helper.make_tensor_value_info("unused", TensorProto.FLOAT, ["batch"])] if extra_input else []),
        [numpy_helper.from_array(table, "table")],
    )
    folder.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    return folder
