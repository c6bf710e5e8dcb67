"""Conversion of a published fp32 model to fp16: half the size, for GPUs. Needs the extra ``convert``.

``python -m app.embedding.convert [MODEL]`` writes it to where the service with `BRAID_EMBEDDING_PRECISION=fp16` expects
it. On a CPU fp16 is slower than fp32, because ONNX Runtime casts back and forth.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click

from app.config import load_settings
from app.embedding.model_folder import model_file, model_folder
from app.errors import BraidError, ConfigurationError
from reranker.runtime.model_files import MODEL_FILE


def convert_to_fp16(source: Path, target: Path, *, file: str = MODEL_FILE) -> None:
    """Write `target` (a folder that does not exist yet) as the fp16 copy of the model folder `source`.

    Weights and arithmetic become fp16; inputs and outputs keep their types. JSON files, which say how the model pools
    and prompts, come along. `target` is created atomically.

    Args:
        file: the ONNX file's path in `source`.

    Raises:
        ConfigurationError: the extra is not installed, or `target` exists.
    """
    try:
        import onnx  # type: ignore[import-untyped,unused-ignore]
        from onnxruntime.transformers.float16 import (  # type: ignore[import-untyped]
            convert_float_to_float16,
        )
    except ImportError as error:
        raise ConfigurationError("converting needs the extra: pip install 'braid-rag[convert]'") from error
    if target.exists():
        raise ConfigurationError(f"{target} exists: remove it to convert again")
    model = convert_float_to_float16(onnx.load(source / file), keep_io_types=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as scratch:
        fresh = Path(scratch) / "model"
        fresh.mkdir()
        onnx.save(model, fresh / MODEL_FILE)
        for path in source.rglob("*.json"):
            (fresh / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, fresh / path.relative_to(source))
        fresh.rename(target)


@click.command(help=__doc__)
@click.argument("model", default="all-MiniLM-L6-v2")
@click.option("--source", type=click.Path(path_type=Path), help="A folder with the fp32 model; default: the cache's.")
@click.option("--target", type=click.Path(path_type=Path), help="The folder to write; default: in the cache.")
def main(model: str, source: Path | None, target: Path | None) -> None:
    try:
        settings = load_settings(embedding_model=model, embedding_precision="fp32", embedding_path=source)
        target = target or settings.machine.cache_dir / "models" / f"{model}-fp16"
        folder = model_folder(settings)
        convert_to_fp16(folder, target, file=model_file(settings, folder))
    except BraidError as error:
        raise click.ClickException(error.detail) from error
    click.echo(f"wrote {target}")


if __name__ == "__main__":
    main()
