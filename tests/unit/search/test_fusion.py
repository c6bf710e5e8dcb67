from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.passage import Hit
from app.search.fusion import fuse_linear, fuse_rrf, min_max


def hit(name: str, score: float) -> Hit:
    return Hit(
        id=name, document_id=name, title="", section_heading="", text="", source_id="", source_type="text", uri="",
        page=None, position=0, timestamp=None, topic_tags=(), score=score,
    )  # fmt: skip


LEXICAL = [hit("a", 9.0), hit("b", 5.0), hit("c", 1.0)]
DENSE = [hit("b", 1.9), hit("d", 1.5), hit("a", 1.1)]


def test_min_max_follows_the_plugin() -> None:
    assert min_max([9.0, 5.0, 1.0]) == [1.0, 0.5, 0.001]
    assert min_max([3.0, 3.0]) == [1.0, 1.0]
    assert min_max([]) == []


def test_linear_by_hand() -> None:
    fused = fuse_linear(LEXICAL, DENSE, 0.5)
    assert [(h.id, pytest.approx(h.score)) for h in fused] == [("b", 0.75), ("a", 0.5005), ("d", 0.25), ("c", 0.0005)]
    best = fused[0]
    assert (best.lexical, best.dense, best.fused) == (5.0, 1.9, best.score)
    assert fused[2].lexical is None


def test_alpha_is_the_dense_share() -> None:
    assert [h.id for h in fuse_linear(LEXICAL, DENSE, 0.0)][:3] == ["a", "b", "c"]
    assert [h.id for h in fuse_linear(LEXICAL, DENSE, 1.0)][:3] == ["b", "d", "a"]


def test_rrf_by_hand() -> None:
    fused = fuse_rrf(LEXICAL, DENSE, 60)
    assert [(h.id, pytest.approx(h.score)) for h in fused] == [
        ("b", 1 / 61 + 1 / 62),
        ("a", 1 / 61 + 1 / 63),
        ("d", 1 / 62),
        ("c", 1 / 63),
    ]


def test_empty_legs() -> None:
    assert fuse_linear([], [], 0.5) == []
    assert [h.id for h in fuse_rrf([], DENSE, 60)] == ["b", "d", "a"]


legs = st.lists(
    st.tuples(st.sampled_from("abcdefghij"), st.floats(0, 50)), unique_by=lambda pair: pair[0], max_size=10
).map(lambda pairs: sorted((hit(*pair) for pair in pairs), key=lambda h: -h.score))


@given(legs, legs, st.floats(0, 1))
def test_nothing_is_lost_or_doubled_and_the_order_is_total(left: list[Hit], right: list[Hit], alpha: float) -> None:
    for fused in (fuse_linear(left, right, alpha), fuse_rrf(left, right, 60)):
        assert {h.id for h in fused} == {h.id for h in left} | {h.id for h in right}
        assert len({h.id for h in fused}) == len(fused)
        assert fused == sorted(fused, key=lambda h: (-h.score, h.id))
        assert all(h.score >= 0 for h in fused)
