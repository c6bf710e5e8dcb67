from pathlib import Path

import onnxruntime
import pytest

from app.config import load_settings
from app.embedding import model_folder as folders
from app.embedding.conventions import Conventions
from app.embedding.encoder import Encoder, load_encoder
from app.embedding.model_folder import Prefixes, model_rules
from app.errors import ConfigurationError


def test_a_missing_model_names_the_remedy(tmp_path: Path) -> None:
    settings = load_settings(cache_dir=tmp_path, embedding_precision="int8")
    with pytest.raises(ConfigurationError, match=r"'all-MiniLM-L6-v2-int8'.*braid up.*BRAID_EMBEDDING_PATH"):
        load_encoder(settings)


def test_a_missing_fp16_model_names_the_conversion(tmp_path: Path) -> None:
    settings = load_settings(cache_dir=tmp_path, embedding_precision="fp16")
    with pytest.raises(ConfigurationError, match=r"app\.embedding\.convert all-MiniLM-L6-v2"):
        load_encoder(settings)


def test_the_folder_of_the_setting_comes_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no model\.onnx and no tokenizer\.json"):
        folders.model_folder(load_settings(embedding_path=tmp_path))
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).touch()
    assert folders.model_folder(load_settings(embedding_path=tmp_path)) == tmp_path


def test_prefixes_are_built_in_and_can_be_replaced() -> None:
    def prefixes(**values: object) -> Prefixes:
        return model_rules(load_settings(**values), Conventions()).prefixes

    assert prefixes() == Prefixes("", "")
    assert prefixes(embedding_model="e5-small-v2") == Prefixes("query: ", "passage: ")
    own = {"embedding_query_prefix": "none", "embedding_passage_prefix": "doc: "}
    assert prefixes(embedding_model="e5-small-v2", **own) == Prefixes("", "doc: ")


@pytest.mark.parametrize(("model", "tokenizer"), [(b"", None), (b"no onnx", None), (None, b"{}"), (None, b"\xff")])
def test_broken_files_are_configuration_errors(
    tmp_path: Path, model_folder: Path, model: bytes | None, tokenizer: bytes | None
) -> None:
    for name, content in (("model.onnx", model), ("tokenizer.json", tokenizer)):
        if content is None:
            (tmp_path / name).symlink_to(model_folder / name)
        else:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"model\.onnx|tokenizer\.json"):
        Encoder(tmp_path, name="broken")


@pytest.mark.parametrize(
    ("provider", "known"), [("cuda", "CUDAExecutionProvider"), ("openvino", "OpenVINOExecutionProvider")]
)
def test_asking_for_a_provider_that_is_missing_names_the_package(model_folder: Path, provider: str, known: str) -> None:
    if known in onnxruntime.get_available_providers():
        pytest.skip(f"this build of ONNX Runtime has {known}")
    with pytest.raises(ConfigurationError, match=f"BRAID_EMBEDDING_PROVIDER={provider}.*install onnxruntime-"):
        load_encoder(load_settings(embedding_path=model_folder, embedding_provider=provider))
