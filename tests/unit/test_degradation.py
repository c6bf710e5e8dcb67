"""One list has all reasons, and the page shows it. To write it anew: ``python -m tests.unit.test_degradation``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.degradation import Reason, reasons_table
from app.errors import (
    BraidError,
    DeadlineExceeded,
    EncoderError,
    Overloaded,
    RerankerError,
    RerankerUnavailable,
    StoreError,
    StoreNotReady,
    StoreUnavailable,
)
from app.serving.answer_cache import is_cacheable

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "failures.md"
_BEGIN, _END = "<!-- reasons: made by python -m tests.unit.test_degradation -->\n\n", "\n<!-- end -->"
TABLE = re.compile(f"(?<={re.escape(_BEGIN)}).*?(?={re.escape(_END)})", re.DOTALL)


def test_the_page_shows_the_list_as_it_is() -> None:
    (shown,) = TABLE.findall(PAGE.read_text())
    assert shown == reasons_table()


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_a_word_with_a_meaning_and_a_remedy(reason: Reason) -> None:
    assert re.fullmatch("[a-z]+(-[a-z]+)*", reason.value)
    assert reason.meaning
    assert reason.remedy
    assert reason.with_detail("why") == f"{reason.value}: why"
    assert Reason.of(reason.value) is reason


@pytest.mark.parametrize(
    "error",
    [
        StoreError,
        StoreUnavailable,
        StoreNotReady,
        DeadlineExceeded,
        EncoderError,
        RerankerError,
        RerankerUnavailable,
        Overloaded,
    ],
)
def test_each_error_that_a_search_survives_gives_a_reason(error: type[BraidError]) -> None:
    assert Reason.of(error.kind).value == error.kind


def test_each_reason_of_the_language_model_is_in_the_list() -> None:
    source = (ROOT / "app" / "generation" / "llm.py").read_text()
    raised = set(re.findall(r'reason="([^"]+)"', source))
    assert raised >= {"unreachable", "timeout"}
    assert raised <= {reason.value for reason in Reason}


def test_no_code_writes_a_reason_by_hand() -> None:
    written = re.compile(rf'"(?:{"|".join(map(re.escape, Reason))}): ')
    found = {
        str(path.relative_to(ROOT)): written.findall(path.read_text())
        for path in (ROOT / "app").rglob("*.py")
        if written.search(path.read_text())
    }
    assert found == {}


def test_answers_are_kept_whose_reasons_lie_in_the_request_or_the_settings() -> None:
    kept = {reason for reason in Reason if is_cacheable([reason.with_detail("a detail")])}
    assert kept == {
        Reason.SWITCHED_OFF,
        Reason.QUERY_CUT,
        Reason.NO_WORDS,
        Reason.NO_MODEL,
        Reason.NO_THRESHOLD,
        Reason.NOT_CONFIGURED,
        Reason.UNCALIBRATED,
    }
    assert not is_cacheable([Reason.QUERY_CUT.with_detail("a detail"), Reason.DEADLINE.with_detail("a detail")])


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: reasons_table(), PAGE.read_text()))
