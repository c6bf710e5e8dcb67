"""Pairs joined from one encoding of the query equal pairs encoded together, whatever the texts."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from reranker.errors import ModelFolderError
from reranker.runtime.tokenizing import PairTokenizer
from tests.reranker_model import write_cross_encoder

TEXTS = st.text(st.sampled_from("abc Wing plate,.-!?é漢\u0301\n\t [SEP]ÀÉ0123456789"), max_size=400)


class Both:
    """The tokenizer of a folder, and the library's own pair encoding to compare with."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        self.ours = PairTokenizer(folder, max_tokens=max_tokens)
        self.plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.plain.no_padding()
        self.plain.enable_truncation(max_tokens, strategy="only_second")

    def check(self, query: str, documents: list[str]) -> None:
        found = self.ours.encode(query, documents)
        expected = self.plain.encode_batch([(query, document) for document in documents])
        assert [pair.ids.tolist() for pair in found.pairs] == [encoding.ids for encoding in expected]
        assert [pair.types.tolist() for pair in found.pairs] == [encoding.type_ids for encoding in expected]
        assert found.truncated == sum(1 for encoding in expected if encoding.overflowing)


@pytest.fixture(scope="module")
def both(tiny_folder: Path) -> Both:
    return Both(tiny_folder, 48)


@given(query=st.text(st.sampled_from("abc wing,.é漢 "), max_size=18), documents=st.lists(TEXTS, max_size=5))
@settings(deadline=None)
def test_pairs_equal_plain_pair_encoding(both: Both, query: str, documents: list[str]) -> None:
    both.check(query, documents)


def test_with_a_published_tokenizer(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((model_folder / "tokenizer.json").read_bytes())
    (tmp_path / "config.json").write_text("{}")
    both = Both(tmp_path, 128)
    long = "The boundary-layer, naïve as ever (see Müller [SEP] 1999), was 3.5 cm thick at Mach 2; unbelievably so. "
    both.check(
        "How thick is the boundary layer?", ["", " ", "thin", long, long * 3, long * 40, "漢字" * 300, "a" * 5000]
    )


def test_only_as_much_of_a_long_text_is_read_as_decides(both: Both) -> None:
    # words so long that the first look at a text gives too few tokens
    both.check("wing", ["abcdefghij" * 9 + " " + "abcdefghij" * 9 + " plate", ("x" * 120 + " ") * 30])


def test_a_megabyte_is_taken(tiny_folder: Path) -> None:
    tokenizer = PairTokenizer(tiny_folder, max_tokens=256)
    documents = ["flat plate " * 100_000, "x" * 1_000_000, " " * 1_000_000, "\ud800" * 1_000_000]
    found = tokenizer.encode("plate", documents)
    assert found.truncated == 4
    assert max(len(pair) for pair in found.pairs) == 256


def test_a_long_query_leaves_room_for_the_document(tiny_folder: Path) -> None:
    found = PairTokenizer(tiny_folder, max_tokens=64).encode("wing " * 500, ["plate " * 500])
    assert found.query_truncated
    assert found.truncated == 1
    assert len(found.pairs[0]) == 64
    assert found.pairs[0].types.sum() == 64 - 32 - 2


def test_documents_can_be_cut_shorter(tiny_folder: Path) -> None:
    tokenizer = PairTokenizer(tiny_folder, max_tokens=64)
    found = tokenizer.encode("of", ["the a an of in"], max_document_tokens=3)
    assert len(found.pairs[0]) == 3 + 1 + 3
    assert found.truncated == 1
    assert tokenizer.encode("of", [], max_document_tokens=3).pairs == []


def test_a_tokenizer_that_does_not_join_pairs_is_refused(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path)
    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.post_processor = None
    tokenizer.save(path)
    with pytest.raises(ModelFolderError, match="post-processor"):
        PairTokenizer(folder, max_tokens=64)


def test_places_must_suffice_for_a_pair(tiny_folder: Path) -> None:
    with pytest.raises(ModelFolderError, match="no room for a document"):
        PairTokenizer(tiny_folder, max_tokens=6)
