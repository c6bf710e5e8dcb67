"""Quantisation: smaller copies of a cross-encoder, int8 for CPUs, fp16 for GPUs. Needs the extra ``convert`` (onnx).

int8: weights are quantised once, per output channel; activations at run time, with one scale per batch and tensor.
AVX2 and AVX-512 without VNNI multiply u8 activations by s8 weights into 16 bits, two products at a time, which can
saturate (255 * 127 * 2 > 32767) and then corrupts scores silently. Two ways around it, the same on every CPU:

* ``reduced``: weights in 7 bits (-64..64): no sum can saturate, and the fast instructions stay. The default.
* ``u8``: unsigned weights in all 8 bits; ONNX Runtime then widens to 16 bits first, which is slower.

(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "When and why do I need to try U8U8?")
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from reranker.errors import ConfigurationError, ModelFolderError
from reranker.model_folder import SETTINGS_FILE, Precision, load_settings, model_file, write_settings
from reranker.runtime.model_files import MODEL_FILE
from reranker.runtime.quantizing import quantize_dynamic

Weights = Literal["reduced", "u8"]

_LAYER = re.compile(r"(?:^|[./_])layers?[._](\d+)[./_]")
_EMBEDDINGS = re.compile(r"word_embeddings|token_embeddings|embed_tokens|embeddings\.weight|tok_embeddings")
_OPSET = 11


def quantize_int8(
    source: Path,
    target: Path,
    *,
    weights: Weights = "reduced",
    embeddings: bool = False,
    keep_last_layers: int = 0,
) -> None:
    """Write `target` (a folder that does not exist yet) as the int8 copy of the model folder `source`.

    Nodes outside the layers (pooler, classifier) keep their precision: they cost little time and decide the score.

    Args:
        source: an fp32 model's folder.
        target: created atomically; the other files of `source` are copied, including the calibration.
        weights: how to avoid saturation.
        embeddings: also quantise the word embeddings: half the size, no faster, slightly worse.
        keep_last_layers: number of last layers to leave in fp32.

    Raises:
        ConfigurationError: the extra is not installed, or `target` exists.
        ModelFolderError: `source` is not an fp32 model, or its layers can't be identified.
    """
    with _twin(source, target, "int8") as (model, fresh):
        # not every exporter names its nodes, and the nodes to quantise are listed by name
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"node_{number}"
        chosen = _nodes(model, source, embeddings, keep_last_layers)
        quantize_dynamic(
            model,
            fresh / MODEL_FILE,
            reduced=weights == "reduced",
            op_types_to_quantize=["MatMul", "Gather"],
            nodes_to_quantize=chosen,
        )


def convert_fp16(source: Path, target: Path) -> None:
    """Write `target` (a folder that does not exist yet) as the fp16 copy of the fp32 model folder `source`, for GPUs.

    Weights and arithmetic become fp16; inputs and outputs keep their types. It is slower than fp32 on a CPU.

    Raises:
        ConfigurationError: the extra is not installed, or `target` exists.
        ModelFolderError: `source` is not the folder of an fp32 model.
    """
    try:
        import onnx  # type: ignore[import-untyped,unused-ignore]
        from onnxruntime.transformers.float16 import (  # type: ignore[import-untyped,unused-ignore]
            convert_float_to_float16,
        )
    except ImportError as error:
        raise _missing_extra() from error
    with _twin(source, target, "fp16") as (model, fresh):
        onnx.save(convert_float_to_float16(model, keep_io_types=True), fresh / MODEL_FILE)


@contextmanager
def _twin(source: Path, target: Path, precision: Precision) -> Iterator[tuple[Any, Path]]:
    """Yield the model of `source` and a temporary folder that becomes `target` at the end of the block."""
    try:
        import onnx
    except ImportError as error:
        raise _missing_extra() from error
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]

    settings = load_settings(source)
    if settings.precision != "fp32":
        raise ModelFolderError(f"{SETTINGS_FILE} in {source} says {settings.precision}: convert from the fp32 model")
    if target.exists():
        raise ConfigurationError(f"{target} exists: remove it to convert again")
    try:
        model = onnx.load(model_file(source, settings))
    except (OSError, DecodeError, onnx.checker.ValidationError) as error:
        raise ModelFolderError(f"{MODEL_FILE} in {source} can't be read: {error}") from error
    _need_opset(model, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as scratch:
        fresh = Path(scratch) / "model"
        fresh.mkdir()
        for path in source.iterdir():
            # external weights lie in files named after model.onnx
            if path.is_file() and not path.name.startswith((MODEL_FILE, ".")):
                shutil.copyfile(path, fresh / path.name)
        yield model, fresh
        write_settings(fresh, dataclasses.replace(settings, precision=precision, file=None))
        fresh.rename(target)


def _nodes(model: Any, source: Path, embeddings: bool, keep_last_layers: int) -> list[str]:
    """Return the names of the nodes to quantise: multiplications by a constant matrix within the layers."""
    constants = {tensor.name for tensor in model.graph.initializer}
    layers: dict[str, int | None] = {}
    tables: list[str] = []
    for node in model.graph.node:
        names = " ".join([node.name, *node.input, *node.output])
        if node.op_type == "MatMul" and node.input[1] in constants:
            found = _LAYER.search(names)
            layers[node.name] = int(found.group(1)) if found else None
        elif node.op_type == "Gather" and node.input[0] in constants and _EMBEDDINGS.search(names):
            tables.append(node.name)
    numbers = [number for number in layers.values() if number is not None]
    if not layers or (keep_last_layers and not numbers):
        raise ModelFolderError(
            f"{MODEL_FILE} in {source}: {'its nodes do not say which layer they are of' if layers else 'nothing to do'}"
            f" ({len(layers)} multiplications by weights found): export it again, or keep no layers"
        )
    last = max(numbers, default=0) - keep_last_layers
    chosen = [name for name, number in layers.items() if not numbers or (number is not None and number <= last)]
    return chosen + (tables if embeddings else [])


def _need_opset(model: Any, source: Path) -> None:
    opset = next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), 0)
    if opset < _OPSET:
        raise ModelFolderError(f"{MODEL_FILE} in {source} has opset {opset}: export it with {_OPSET} or later")


def _missing_extra() -> ConfigurationError:
    return ConfigurationError("converting a model needs the extra: pip install 'braid-rag[convert]'")
