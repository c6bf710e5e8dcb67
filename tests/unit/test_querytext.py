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


def test_repeated_words_of_a_long_query_are_asked_once() -> None:
    found = read_query(",".join("x" for _ in range(2000)))
    assert ([*found.text.replace(",", "").split()], found.terms, found.cut) == (["x"], 1, False)
    assert read_query("漢字" * 600).text == "漢字"
    assert not read_query("two words").cut


def test_of_too_many_words_the_rarest_are_asked() -> None:
    """Long words and those with digits are rare; stop words go first."""
    words = [f"w{n}" for n in range(10)] + ["cooling", "pump", "of", "the", "ox", "fan"]
    found = read_query(" ".join(words), most=13)
    assert (found.text, found.terms, found.cut) == (" ".join([*words[:12], "fan"]), 13, True)
    assert not read_query(" ".join(words), most=14).cut  # without the stop words it fits
    emoji = "".join(chr(0x1F300 + n) for n in range(1100))
    found = read_query(emoji)
    assert (found.text, found.terms, found.cut) == (emoji[:MAX_TERMS], MAX_TERMS, True)


def test_what_stands_at_the_end_of_a_long_query_counts() -> None:
    found = read_query(" ".join(f"{chr(0x4E00 + n)}" for n in range(1500)) + ' ERR-4711 "upload queue"')
    assert (found.codes, found.phrases) == (("err-4711",), ("upload queue",))
    assert found.text.endswith('ERR-4711 "upload queue"')


def test_left_out_words_make_no_new_neighbours() -> None:
    assert read_query("漢x字y文", most=4).text == "漢x字y"
    assert read_query("甲乙甲丙", most=3).text == "甲乙 丙"


@pytest.mark.parametrize("text", ["IT", "the who", "to be, or not to be?"])
def test_stop_words_alone(text: str) -> None:
    assert read_query(text).stop_words


@pytest.mark.parametrize("text", ["IT policy", "?!", "", "😀", "it 4711"])
def test_what_is_not_stop_words_alone(text: str) -> None:
    assert not read_query(text).stop_words


def test_identifiers_in_full_width_are_those_in_ascii() -> None:
    assert read_query("ＥＲＲ－４７１１　ppr9087").codes == ("err-4711", "ppr9087")


def test_an_identifier_may_stand_apart() -> None:
    assert read_query("ppr9087 covid19 ERR-4711 it4 a4 v2.19.1").apart == ("ppr 9087", "covid 19")


def test_words_with_other_spellings() -> None:
    assert read_query("the café and the menu of 2024").foldable == ("café", "menu", "2024")
    long = " ".join(f"word{'abcdefghij'[n]}" for n in range(9))
    assert read_query(f"{long} café").foldable == ("café",)


def test_long_queries_are_not_checked_for_typing_errors() -> None:
    assert read_query(" ".join(f"word{'abcdefghij'[n]}" for n in range(9))).checked == ()


@pytest.mark.parametrize(
    "text", ["漢字" * 2000, " ".join("漢" * 200 for _ in range(8)), "か" * 300 + " a pump", "x" * 4000, "ภาษาไทย" * 500]
)
def test_text_without_spaces_is_no_word_to_look_for_in_other_spellings(text: str) -> None:
    found = read_query(text)
    assert (found.checked, found.foldable) == (("pump",), ("pump",)) if "pump" in text else ((), ())
    assert read_query("漢字 カタ").foldable == ("漢字", "カタ")


@given(st.text(max_size=300))
def test_never_fails_and_stays_bounded(text: str) -> None:
    found = read_query(text)
    assert found.text == text
    assert len(found.pairs) <= 16
    assert len(found.codes) <= 8
    assert all(code == code.lower() and " " not in code for code in found.codes)
