"""Export of a torch classifier to the model folder that serving loads, verified against torch.

`optimum` is not used: its ONNX exporter (optimum-onnx 0.1.0) requires transformers below 4.58, and torch's own exporter
writes the same graph.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped,unused-ignore]

from reranker.errors import ConfigurationError, ModelFolderError
from reranker.model_folder import CONFIG_FILE, TOKENIZER_FILE, ModelSettings, load_settings, write_settings
from reranker.runtime.model_files import MODEL_FILE
from reranker.runtime.tokenizing import PairTokenizer
from reranker.train.scoring import pad_pairs, takes_types
from reranker.train.students import load_classifier

OPSET = 18
TOLERANCE = 1e-4
_TEST_PAIRS = (
    ("what is a widget", ("A widget is a small part of a machine.", "Nothing of the kind. " * 30)),
    ("?", ("", "Überall 日本語 ERR-4711", "a " * 500)),
)


def export(source: Path, target: Path, *, max_tokens: int = 256, name: str | None = None) -> float:
    """Write the cross-encoder in the Hugging Face folder `source` into `target`.

    Args:
        source: ``config.json`` (num_labels 1), weights, ``tokenizer.json``.
        target: a folder; it is created, or its model files are replaced.
        max_tokens: of a pair, for ``reranker.json``; limited to the model's number of positions.

    Returns:
        The largest difference between the exported model's logits and torch's.

    Raises:
        ModelFolderError: `source` is not such a folder, or the exported model differs from torch.
        ConfigurationError: `target` can't be written.
    """
    if not source.is_dir():
        raise ModelFolderError(
            f"there is no folder {source}: expected one with config.json, model.safetensors and {TOKENIZER_FILE}"
        )
    if not (source / TOKENIZER_FILE).is_file():
        raise ModelFolderError(
            f"no {TOKENIZER_FILE} in {source}: expected the file of the `tokenizers` library; if there is only a "
            "vocabulary, AutoTokenizer.from_pretrained(...).save_pretrained(...) writes it"
        )
    model = load_classifier(source)
    places = getattr(model.config, "max_position_embeddings", max_tokens)
    if getattr(model.config, "model_type", "") in {"roberta", "xlm-roberta", "camembert"}:
        places -= 2  # their positions begin after the padding position
    settings = ModelSettings(name=name or source.resolve().name, max_tokens=min(max_tokens, places))
    return write_model(model, source / TOKENIZER_FILE, target, settings)


def write_model(model: Any, tokenizer: Path, target: Path, settings: ModelSettings) -> float:
    """Export a model in memory; see `export`."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as made:
            aside = Path(made)
            shutil.copyfile(tokenizer, aside / TOKENIZER_FILE)
            _write_config(model, aside)
            _write_graph(model, aside / MODEL_FILE)
            write_settings(aside, settings)
            load_settings(aside)
            difference = _difference(model, aside, settings.max_tokens)
            if not difference <= TOLERANCE:
                raise ModelFolderError(
                    f"the exported model returns logits that differ from torch's by {difference:.2g}, more than "
                    f"{TOLERANCE:g}: {type(model).__name__} can't be exported faithfully with this torch"
                )
            for file in sorted(aside.iterdir()):
                file.replace(target / file.name)
    except OSError as error:
        raise ConfigurationError(f"{target} can't be written ({error.strerror}): pass another folder") from error
    return difference


def _write_config(model: Any, folder: Path) -> None:
    found = json.loads(model.config.to_json_string(use_diff=False))
    kept = {
        name: value
        for name, value in found.items()
        if value is not None and not name.startswith("_") and isinstance(value, str | int | float | bool | list)
    }
    kept |= {"num_labels": 1, "architectures": [type(model).__name__]}
    kept.pop("id2label", None)
    (folder / CONFIG_FILE).write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_graph(model: Any, path: Path) -> None:
    """Write the ONNX graph with dynamic batch and length."""
    import torch

    names = ["input_ids", "attention_mask", *(["token_type_ids"] if takes_types(model) else [])]

    class Logits(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        """Wrapper with positional inputs and a single output tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(**dict(zip(names, inputs, strict=True))).logits
            return logits

    example = tuple(torch.ones(2, 9, dtype=torch.int64) for _ in names)
    dynamic = {0: torch.export.Dim("pairs"), 1: torch.export.Dim("tokens")}
    model.eval().cpu()
    model.set_attn_implementation("eager")  # plain MatMul and Softmax, which every runtime and quantiser supports
    # the older, tracing exporter treats the example's mask as a constant: its logits were off by 0.01
    torch.onnx.export(
        Logits().eval(),
        example,
        str(path),
        input_names=names,
        output_names=["logits"],
        dynamic_shapes={"inputs": tuple(dynamic for _ in names)},
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _difference(model: Any, folder: Path, max_tokens: int) -> float:
    """Return the largest difference between torch's and ONNX's logits, over short, long, single and batched pairs."""
    import torch

    tokenizer = PairTokenizer(folder, max_tokens=max_tokens)
    session = ort.InferenceSession(str(folder / MODEL_FILE), providers=["CPUExecutionProvider"])
    worst = 0.0
    for query, documents in _TEST_PAIRS:
        inputs = pad_pairs(tokenizer.encode(query, documents).pairs, tokenizer.padding_id, takes_types(model))
        with torch.inference_mode():
            expected = model(**inputs).logits.float().numpy()
        (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        if found.shape != expected.shape:
            raise ModelFolderError(f"the exported model returns shape {found.shape}, expected {expected.shape}")
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst
