"""ONNX files in a model's folder, as sentence-transformers and optimum leave them."""

from __future__ import annotations

from pathlib import Path

MODEL_FILE = "model.onnx"
_PLACES = (MODEL_FILE, f"onnx/{MODEL_FILE}")


def find_model_file(folder: Path, wanted: str | None) -> str | None:
    """Return the path in `folder` of `wanted`, or else of ``model.onnx`` there or in ``onnx``; None if missing."""
    return next((name for name in ((wanted,) if wanted else _PLACES) if (folder / name).is_file()), None)


def onnx_files(folder: Path) -> list[str]:
    """Return the paths of the ONNX files in `folder` and in its ``onnx``, those in the folder first."""
    found = [*sorted(folder.glob("*.onnx")), *sorted(folder.glob("onnx/*.onnx"))]
    return [path.relative_to(folder).as_posix() for path in found]
