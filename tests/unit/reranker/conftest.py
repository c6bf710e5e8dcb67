from pathlib import Path

import pytest

from reranker.cross_encoder import CrossEncoder
from tests.reranker_model import write_cross_encoder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny cross-encoder; read only."""
    return write_cross_encoder(tmp_path_factory.mktemp("reranker") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> CrossEncoder:
    return CrossEncoder(tiny_folder, threads=1, provider="cpu")
