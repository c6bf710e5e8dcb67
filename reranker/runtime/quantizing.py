"""Dynamic quantisation of an ONNX model to int8. Needs the package `onnx`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any


def quantize_dynamic(model: Any, target: Path, *, reduced: bool, **how: Any) -> None:
    """Write `model` (an ``onnx.ModelProto``) to `target` with int8 weights, a scale for each channel.

    Args:
        reduced: seven bits, with a sign: products of two never saturate on a CPU without VNNI. Else eight, without.
        how: further options of `onnxruntime.quantization.quantize_dynamic`.

    Raises:
        ImportError: `onnx` is not installed.
    """
    from onnxruntime.quantization import QuantType  # type: ignore[import-untyped,unused-ignore]
    from onnxruntime.quantization import quantize_dynamic as quantize

    root = logging.getLogger()
    level = root.level
    # it logs the advice to optimise first through the root logger; a session does that anyway
    root.setLevel(logging.ERROR)
    try:
        quantize(
            model,
            target,
            per_channel=True,
            reduce_range=reduced,
            weight_type=QuantType.QInt8 if reduced else QuantType.QUInt8,
            **how,
        )
    finally:
        root.setLevel(level)
