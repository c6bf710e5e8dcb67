import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sentences import sentence_spans


def sentences(text: str) -> list[str]:
    return [text[a:b] for a, b, _ in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("See Fig. 3 for details. Next.", ["See Fig. 3 for details.", "Next."]),
        ("See Figs. 2 and 3. Eq. (3) holds.", ["See Figs. 2 and 3.", "Eq. (3) holds."]),
        ("Use e.g. a rope, i.e. a line. Done.", ["Use e.g. a rope, i.e. a line.", "Done."]),
        ("Smith et al. (2003) agree. So do we.", ["Smith et al. (2003) agree.", "So do we."]),
        ("Dr. J. Doe left. He ran.", ["Dr. J. Doe left.", "He ran."]),
        ("It took 5 min. Then we left.", ["It took 5 min.", "Then we left."]),
        ("1. Open the lid. 2. Close it.", ["1. Open the lid.", "2. Close it."]),
        ("The U.S. Army came. It left.", ["The U.S. Army came.", "It left."]),
        ("It costs 3.14 dollars. Cheap.", ["It costs 3.14 dollars.", "Cheap."]),
        ("第一句。第二句！", ["第一句。", "第二句！"]),
        ("first line\n\nsecond line", ["first line", "second line"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences_end_where_a_reader_says(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("de", "Er kam z.B. am 3. Mai an. Siehe Abb. 3 bzw. Tab. 4. Ende.", 3),
        ("fr", "M. Dupont est là. Voir p. ex. le chap. 3. Fin.", 3),
        ("es", "El Sr. García vino. Véase la pág. 3 y la núm. 4. ¿Qué? Nada.", 4),
        ("ru", "В 1990 г. он приехал. См. рис. 3 и т. д. в конце. Конец.", 3),
        ("hi", "यह एक वाक्य है। यह दूसरा है।", 2),
        ("ja", "これは文です。次の文！", 2),
        ("hy", "Առաջին նախադասություն։ Երկրորդ։", 2),
        ("xx", "One. Two.", 2),
        ("", "One. Two.", 2),
    ],
)
def test_sentences_end_by_the_rules_of_their_language(language: str, text: str, expected: int) -> None:
    assert len(sentence_spans(text, language)) == expected, [text[a:b] for a, b, _ in sentence_spans(text, language)]


def test_blank_lines_begin_paragraphs() -> None:
    assert [begins for _, _, begins in sentence_spans("A cat. A dog.\n \nA cow.")] == [True, False, True]


@given(st.text(alphabet=st.sampled_from("ab .!?\n\t\"'()1。,é"), max_size=300))
def test_nothing_is_lost_and_nothing_overlaps(text: str) -> None:
    spans = sentence_spans(text)
    assert re.sub(r"\s", "", "".join(text[a:b] for a, b, _ in spans)) == re.sub(r"\s", "", text)
    assert all(a < b for a, b, _ in spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_long_text_is_segmented_in_windows() -> None:
    text = "One more sentence here. " * 2_000
    assert set(sentences(text)) == {"One more sentence here."}
