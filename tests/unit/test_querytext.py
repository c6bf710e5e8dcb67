from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.querytext import MAX_TERMS, is_distinctive, read_query


def test_a_question_with_an_identifier_and_a_phrase() -> None:
    found = read_query('What does ERR-4711: mean in (v2.19.1), "upload queue"?')
    assert found.codes == ("err-4711", "v2.19.1")
    assert found.phrases == ("upload queue",)
    assert found.pairs == ("ERR-4711 mean", "mean v2.19.1", "v2.19.1 upload", "upload queue")
    assert found.checked == ("mean", "upload", "queue")
    assert (found.words, found.question, found.exact, found.cut) == (5, True, True, False)


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("AB-12/34-X", ("ab-12/34-x",)),
        ("see 10.0.0.1, then /usr/lib/x86_64", ("10.0.0.1", "usr/lib/x86_64")),
        ("CVE-2024-12345.", ("cve-2024-12345",)),
        ("mach 2.5 at 12:30 in 1999", ()),
        ("well-known foo_bar words", ()),
        ("covid-19", ("covid-19",)),
    ],
)
def test_identifiers(text: str, codes: tuple[str, ...]) -> None:
    assert read_query(text).codes == codes


@pytest.mark.parametrize("code", ["err-4711", "v2.19.1", "kb5012170", "ab-12/34-x", "10.0.0.1", "cve-2024-12345"])
def test_what_can_only_mean_one_thing(code: str) -> None:
    assert is_distinctive(code)


@pytest.mark.parametrize("code", ["covid-19", "il-6", "1970s", "mid-1970s", "17th", "2008-2009", "h1n1", "7-day-old"])
def test_what_may_mean_many(code: str) -> None:
    assert not is_distinctive(code)


def test_long_queries_are_cut_behind_their_last_term() -> None:
    assert read_query(",".join("x" for _ in range(2000))).cut
    assert read_query("漢字" * 600).text == "漢字" * (MAX_TERMS // 2)
    assert read_query("😀" * 2000).text == "😀" * MAX_TERMS
    assert not read_query("two words").cut


def test_long_queries_are_not_checked_for_typing_errors() -> None:
    assert read_query(" ".join(f"word{'abcdefghij'[n]}" for n in range(9))).checked == ()


@given(st.text(max_size=300))
def test_never_fails_and_stays_bounded(text: str) -> None:
    found = read_query(text)
    assert text.startswith(found.text)
    assert len(found.pairs) <= 16
    assert len(found.codes) <= 8
    assert all(code == code.lower() and " " not in code for code in found.codes)
