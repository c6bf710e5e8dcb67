"""Students: sequence classifiers with one label, made from some of an encoder's layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reranker.errors import ModelFolderError
from reranker.train.onnx_weights import load_bert

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def load_classifier(folder: Path) -> PreTrainedModel:
    """Load a Hugging Face folder on disk as a sequence classifier; nothing is downloaded.

    Raises:
        ModelFolderError: a file is missing, or the model has another architecture or more than one label.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = _config(AutoConfig, folder)
    if config.num_labels != 1:
        raise ModelFolderError(
            f"{folder}: the model has {config.num_labels} labels; a reranker returns one score (num_labels 1)"
        )
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelFolderError(f"{folder}: its weights can't be loaded: {str(error)[:300]}") from error
    if fresh := [name for name in report["missing_keys"] if "position_ids" not in name]:
        raise ModelFolderError(
            f"{folder}: {len(fresh)} weights are missing, such as {min(fresh)}; expected a trained cross-encoder "
            "(sequence classification), not a bare encoder"
        )
    made: PreTrainedModel = model.eval()
    return made


def make_student(source: Path, layers: Sequence[int], *, seed: int) -> PreTrainedModel:
    """Create a classifier with one label from the given layers of an encoder (all, if none are given).

    Args:
        source: an encoder in ONNX (``model.onnx``), or any Hugging Face folder on disk (``config.json``, weights).
            If the latter is a classifier with one label already, its head is kept.

    Raises:
        ModelFolderError: as `load_bert`, or a layer does not exist.
    """
    import torch

    torch.manual_seed(seed)
    model = _load_encoder(source)
    if layers:
        _keep_layers(model, layers, source)
    return model


def _load_encoder(source: Path) -> PreTrainedModel:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForSequenceClassification, BertForSequenceClassification

    if any((source / name).is_file() for name in _WEIGHTS):
        config = _config(AutoConfig, source)
        config.num_labels = 1
        try:
            found: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
                source, config=config, local_files_only=True, ignore_mismatched_sizes=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelFolderError(f"{source}: its weights can't be loaded: {str(error)[:300]}") from error
        return found
    if not (source / "model.onnx").is_file():
        raise ModelFolderError(
            f"{source}: expected an encoder: model.onnx (fp32), or config.json with {' or '.join(_WEIGHTS)}"
        )
    encoder = load_bert(source)
    encoder.config.num_labels = 1
    model: PreTrainedModel = BertForSequenceClassification(encoder.config)
    model.bert = encoder
    return model


def _config(auto: Any, folder: Path) -> Any:
    try:
        return auto.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{folder}: no usable config.json ({str(error)[:200]})") from error


def _keep_layers(model: PreTrainedModel, layers: Sequence[int], source: Path) -> None:
    """Keep only these layers of the encoder's stack."""
    import torch

    owner, name, stack = _find_layers(model, source)
    wrong = [index for index in layers if not 0 <= index < len(stack)]
    if wrong or list(layers) != sorted(set(layers)):
        raise ModelFolderError(f"layers {list(layers)}: {source} has 0 to {len(stack) - 1}; list each once, ascending")
    setattr(owner, name, torch.nn.ModuleList([stack[index] for index in layers]))
    model.config.num_hidden_layers = len(layers)


def _find_layers(model: PreTrainedModel, source: Path) -> tuple[Any, str, Any]:
    """Return the encoder's layers and their parent: the only list of `num_hidden_layers` modules."""
    import torch

    wanted = model.config.num_hidden_layers
    for owner in model.modules():
        for name, child in owner.named_children():
            if isinstance(child, torch.nn.ModuleList) and len(child) == wanted:
                return owner, name, child
    raise ModelFolderError(f"{source}: no stack of {wanted} layers was found in {type(model).__name__}")
