from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from app.config import Settings, load_settings
from app.embedding.encoder import Encoder, load_encoder
from app.provision.models import ensure_model

LoadModel = Callable[[str, str], Encoder]


@pytest.fixture(scope="session")
def load_model(embedded_settings: Settings, model_folder: Path) -> LoadModel:
    """The real encoder of (model, precision), on the CPU, loaded once a session; skips as `model_folder` does."""

    @cache
    def load(name: str, precision: str) -> Encoder:
        settings = load_settings(
            embedding_model=name,
            embedding_precision=precision,
            embedding_provider="cpu",
            cache_dir=embedded_settings.machine.cache_dir,
        )
        ensure_model(name, precision, settings.machine)
        return load_encoder(settings)

    return load


@pytest.fixture(scope="session")
def minilm(load_model: LoadModel) -> Encoder:
    return load_model("all-MiniLM-L6-v2", "fp32")
