from __future__ import annotations

import pytest

from app.config import Settings, load_settings
from app.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRAID_PORT", "eighty"),
        ("BRAID_ALPHA", "1.5"),
        ("BRAID_PASSAGE_TOKENS", "50"),
        ("BRAID_OPENSEARCH_URL", "localhost:9200"),
        ("BRAID_VECTOR_VARIANT", "hnsw"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert name in caught.value.detail
    assert value in caught.value.detail


def test_overlap_must_be_less_than_half() -> None:
    with pytest.raises(ConfigurationError, match="BRAID_PASSAGE_OVERLAP"):
        load_settings(passage_overlap=100, passage_tokens=200)


def test_secrets_stay_out_of_messages_and_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_API_KEY", "hunter2")
    assert "hunter2" not in repr(load_settings())


def test_a_child_process_gets_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(port=1234, api_key="k", opensearch_url="http://127.0.0.1:9200", alpha=0.25)
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_the_precision_is_part_of_the_models_name() -> None:
    assert load_settings(embedding_precision="int8").embedding_id == "all-MiniLM-L6-v2-int8"
    assert load_settings(embedding_precision="fp32").embedding_id == "all-MiniLM-L6-v2"
