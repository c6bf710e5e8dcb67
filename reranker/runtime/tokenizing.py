"""Tokenising of (query, document) pairs, equal to the `tokenizers` library's pairs, with the query
encoded only once."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from reranker.errors import ModelFolderError
from reranker.model_folder import CONFIG_FILE, TOKENIZER_FILE, read_json

Ids = npt.NDArray[np.int64]

QUERY_SHARE = 0.5
"""Largest share of a pair's positions for the query: a longer query is cut, so that part of the document is read."""
FIRST_CUT, LAST_CUT = 8, 128
"""Characters read per token: few at first, more only if those gave too few tokens. A text with less than one token
per `LAST_CUT` characters is not language; the rest of it is not read."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_PROBE = ("what is it", "It is a test, and so on.")


@dataclass(frozen=True, slots=True)
class Pair:
    """Token ids and segment ids of one (query, document) pair, shape (length,) each."""

    ids: Ids
    types: Ids

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class TokenizedPairs:
    """All pairs of one query, in the order of the documents."""

    pairs: list[Pair]
    truncated: int
    """Number of documents that were cut."""
    query_truncated: bool
    milliseconds: float

    @property
    def tokens(self) -> int:
        """Number of tokens of all pairs, including special tokens, excluding padding."""
        return sum(len(pair) for pair in self.pairs)


class PairTokenizer:
    """A model's tokenizer. Safe to share between threads."""

    def __init__(self, folder: Path, *, max_tokens: int) -> None:
        """Load ``tokenizer.json`` of `folder`; pairs are cut to `max_tokens`, including special tokens.

        Raises:
            ModelFolderError: the file is unusable, or `max_tokens` leaves no room for a document.
        """
        self._plain = _load(folder)
        self._joint = _load(folder)
        self._joint.enable_truncation(max_tokens, strategy="only_second")
        self.max_tokens = max_tokens
        self.padding_id = _padding_id(folder, self._plain)
        _check_vocabulary(folder, self._plain)
        self._room = max_tokens - self._joint.num_special_tokens_to_add(True)
        self._query_room = int(max_tokens * QUERY_SHARE)
        if self._room - self._query_room < 1:
            raise ModelFolderError(f"max_tokens {max_tokens} leaves no room for a document: raise it in reranker.json")
        self._check_joining()

    def encode(self, query: str, documents: Sequence[str], *, max_document_tokens: int | None = None) -> TokenizedPairs:
        """Return pairs of `query` with each of `documents`.

        Args:
            query: cut to half of the positions (`QUERY_SHARE`).
            documents: cut to the positions that the query leaves.
            max_document_tokens: a lower limit for documents, if any.
        """
        began = time.perf_counter()
        (head,), (query_truncated,) = self._encode([query], self._query_room)
        room = self._room - len(head)
        if max_document_tokens is not None:
            room = min(room, max_document_tokens)
        tails, cut = self._encode(documents, room)
        pairs = [_pair(self._joint.post_process(head, tail)) for tail in tails]
        return TokenizedPairs(pairs, sum(cut), query_truncated, (time.perf_counter() - began) * 1000)

    def _encode(self, texts: Sequence[str], room: int) -> tuple[list[Encoding], list[bool]]:
        """Return the first `room` tokens of each text, and whether the text was cut.

        Only a short beginning of a long text is encoded at first. It suffices if `room` tokens lie before its last
        word, the only word that the cut can have changed; otherwise more of the text is encoded.
        """
        first, last = room * FIRST_CUT, room * LAST_CUT
        encodings = self._batch([replace_surrogates(text[:first]) for text in texts])
        more = [i for i, text in enumerate(texts) if len(text) > first and not _has_enough_tokens(encodings[i], room)]
        for i, encoding in zip(more, self._batch([replace_surrogates(texts[i][:last]) for i in more]), strict=True):
            encodings[i] = encoding
        cut = [len(found) > room or len(text) > last for found, text in zip(encodings, texts, strict=True)]
        for encoding in encodings:
            encoding.truncate(room)
        return encodings, cut

    def _batch(self, texts: Sequence[str]) -> list[Encoding]:
        return self._plain.encode_batch_fast(list(texts), add_special_tokens=False) if texts else []

    def _check_joining(self) -> None:
        """Raise ModelFolderError for a tokenizer that can't join two texts that were encoded separately."""
        whole = self._joint.encode(*_PROBE)
        head, tail = self._batch(_PROBE)
        joined = self._joint.post_process(head, tail)
        if joined.ids != whole.ids or joined.type_ids != whole.type_ids:
            raise ModelFolderError(
                f"{TOKENIZER_FILE} has no post-processor that joins a query and a document: take the tokenizer that "
                f"the cross-encoder was trained with"
            )


def _has_enough_tokens(encoding: Encoding, room: int) -> bool:
    """Return whether `room` tokens lie before the last word of the text."""
    words = encoding.word_ids
    return len(words) > room and words.index(words[-1]) >= room


def _pair(encoding: Encoding) -> Pair:
    return Pair(np.array(encoding.ids, np.int64), np.array(encoding.type_ids, np.int64))


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which have no UTF-8 form, one for one (offsets stay valid)."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _load(folder: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    except Exception as error:  # the library raises nothing more specific
        raise ModelFolderError(f"{TOKENIZER_FILE} in {folder} is unusable: {error}") from error
    # published files often truncate and pad
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _check_vocabulary(folder: Path, tokenizer: Tokenizer) -> None:
    """Raise ModelFolderError for a tokenizer that has more words than the model."""
    rows, words = read_json(folder, CONFIG_FILE).get("vocab_size"), tokenizer.get_vocab_size()
    if isinstance(rows, int) and words > rows:
        raise ModelFolderError(
            f"{TOKENIZER_FILE} in {folder} has {words} words, and {CONFIG_FILE} says vocab_size {rows}: take the "
            f"tokenizer that the cross-encoder was trained with"
        )


def _padding_id(folder: Path, tokenizer: Tokenizer) -> int:
    """Return the padding id; RoBERTa derives positions from it, so it must be the model's own."""
    given = read_json(folder, CONFIG_FILE).get("pad_token_id")
    if isinstance(given, int):
        return given
    found: int | None = tokenizer.token_to_id("[PAD]")
    return 0 if found is None else found
