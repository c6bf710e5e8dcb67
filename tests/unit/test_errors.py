"""Errors on their way between processes."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import Pipe

import pytest

from app.errors import BraidError, DocumentRejected, FieldProblem, GenerationError, InvalidInput, Overloaded
from app.store.client import StoreBusy, StoreRequestError

EXAMPLES = [
    DocumentRejected("no text", reason="empty"),
    InvalidInput("wrong", problems=[FieldProblem(("body", "acl", 0), "blank")]),
    Overloaded("busy", retry_after_s=7.5),
    GenerationError("away", reason="timeout"),
    StoreRequestError("no", status_code=403, error_type="cluster_block_exception"),
    StoreBusy("busy", status_code=429, error_type="unknown"),
]


def every(kind: type[BraidError]) -> Iterator[type[BraidError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from every(below)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_comes_out_as_it_went_in(error: BraidError) -> None:
    here, there = Pipe()
    with here, there:
        here.send(error)
        found = there.recv()
    assert type(found) is type(error)
    assert (found.args, vars(found)) == (error.args, vars(error))


def test_every_kind_with_a_constructor_of_its_own_is_among_the_examples() -> None:
    own = {kind for kind in every(BraidError) if "__init__" in vars(kind)} - {BraidError}
    assert own <= {base for error in EXAMPLES for base in type(error).__mro__}
