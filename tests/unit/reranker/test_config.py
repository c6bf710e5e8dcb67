from pathlib import Path

import pytest

from reranker.config import load_settings
from reranker.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL", "HOST", "KEY", "PORT", "PROVIDER"):
        monkeypatch.delenv(f"BRAID_RERANKER_{name}", raising=False)


def test_variables_and_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_RERANKER_MODEL", "/models/x")
    monkeypatch.setenv("BRAID_RERANKER_PORT", "1234")
    assert load_settings().model == Path("/models/x")
    assert load_settings(port=5, host=None).port == 5


def test_other_machines_need_a_key() -> None:
    with pytest.raises(ConfigurationError, match="set BRAID_RERANKER_KEY"):
        load_settings(model="/m", host="0.0.0.0")
    assert load_settings(model="/m", host="0.0.0.0", key="secret").host == "0.0.0.0"
    assert load_settings(model="/m", host="::1").key is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "BRAID_RERANKER_MODEL is not set"),
        ({"model": "/m", "port": 70_000}, "BRAID_RERANKER_PORT=70000"),
        ({"model": "/m", "provider": "tpu"}, "BRAID_RERANKER_PROVIDER='tpu'"),
        ({"model": "/m", "max_queue_pairs": 10}, "never fit"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_settings(**wrong)
