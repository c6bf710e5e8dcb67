from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from app.config import load_settings
from app.errors import GenerationError
from app.generation.llm import LanguageModel, Usage
from tests.unit.generation.endpoint import Write, chunk, complete, endpoint, says
from tests.unit.generation.misbehaviour import EVENTS, MISBEHAVIOURS, Misbehaviour, hangs, head

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def model(url: str) -> LanguageModel:
    return LanguageModel(load_settings(llm_url=url, llm_model="small").llm)


def peak_kib() -> int:
    """The most memory that this process had."""
    (line,) = (line for line in Path("/proc/self/status").read_text("ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1])


def reason(url: str, timeout_s: float = 5.0) -> tuple[str, list[str]]:
    """Why the completion failed, and what had come by then."""
    language_model = model(url)
    found: list[str] = []
    pieces = language_model.stream(MESSAGES, timeout_s=timeout_s, usage=Usage())
    with pytest.raises(GenerationError) as caught:
        found.extend(filter(None, pieces))
    language_model.close()
    return caught.value.reason, found


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/chat/completions"])
def test_a_completion_comes_in_pieces_with_its_usage(path: str) -> None:
    with endpoint(says(*complete("Be", "cause."))) as served:
        language_model, usage = model(served.url + path), Usage()
        assert list(language_model.stream(MESSAGES, timeout_s=5, usage=usage)) == ["Be", "cause."]
        language_model.close()
    assert usage.as_dict() == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    (sent,) = served.requests
    assert (sent["model"], sent["messages"], sent["stream"]) == ("small", MESSAGES, True)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert reason(f"http://127.0.0.1:{port}") == ("unreachable", [])


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_an_error_status_is_refused(status: int) -> None:
    with endpoint(says(b'{"error": {"message": "no"}}'), status=status, kind="application/json") as served:
        assert reason(served.url) == ("refused", [])


def test_silence_ends_at_the_time_limit() -> None:
    with endpoint(lambda _, closing: closing.wait(30) and None) as served:
        assert reason(served.url, 0.3) == ("timeout", [])


@pytest.mark.parametrize("drip", [b": still here\n\n", chunk("and ")])
def test_a_drip_that_never_ends_does_end_at_the_time_limit(drip: bytes) -> None:
    def behave(write: Write, closing: threading.Event) -> None:
        while not closing.wait(0.02):
            write(drip)

    with endpoint(behave) as served:
        started = time.monotonic()
        why, pieces = reason(served.url, 0.5)
        assert why == "timeout"
        assert set(pieces) <= {"and "}
        assert time.monotonic() - started < 20, "it hung"
        assert served.hung_up.wait(20), "the request was left running"


def test_an_answer_that_is_closed_ends_the_request() -> None:
    def behave(write: Write, closing: threading.Event) -> None:
        while not closing.wait(0.02):
            write(chunk("more "))

    with endpoint(behave) as served:
        language_model = model(served.url)
        pieces = language_model.stream(MESSAGES, timeout_s=60, usage=Usage())
        assert next(iter(pieces)) == "more "
        pieces.close()  # type: ignore[attr-defined]
        assert served.hung_up.wait(20), "the request was left running"
        language_model.close()


def test_a_stream_that_is_cut_keeps_what_came() -> None:
    with endpoint(says(chunk("Half an"))) as served:
        assert reason(served.url) == ("broken-off", ["Half an"])


@pytest.mark.parametrize(
    "garbage", [b"data: {not json}\n\n", b'data: {"choices": [{"delta": 5}]}\n\n', b'data: {"choices": 7}\n\n']
)
def test_garbage_is_a_bad_answer(garbage: bytes) -> None:
    with endpoint(says(garbage)) as served:
        assert reason(served.url)[0] == "bad-answer"


def test_an_endpoint_that_is_none_gives_no_answer() -> None:
    with endpoint(says(b"<html>Welcome</html>"), kind="text/html") as served:
        assert reason(served.url)[0] in {"bad-answer", "broken-off"}


def test_an_endpoint_that_is_away_is_not_asked_again_for_a_moment() -> None:
    with endpoint(says(b"{}"), status=503, kind="application/json") as served:
        language_model = model(served.url)
        reasons = []
        for _ in range(4):
            with pytest.raises(GenerationError) as caught:
                list(language_model.stream(MESSAGES, timeout_s=5, usage=Usage()))
            reasons.append(caught.value.reason)
        language_model.close()
        assert reasons == ["refused", "refused", "unavailable", "unavailable"]
        assert len(served.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 429])
def test_an_endpoint_that_refuses_is_there(status: int) -> None:
    with endpoint(says(b"{}"), status=status, kind="application/json") as served:
        language_model = model(served.url)
        for _ in range(5):
            with pytest.raises(GenerationError) as caught:
                list(language_model.stream(MESSAGES, timeout_s=5, usage=Usage()))
            assert caught.value.reason == "refused"
        language_model.close()
        assert len(served.requests) == 5


def test_a_caller_with_little_time_says_nothing_about_the_model() -> None:
    with endpoint(lambda _, closing: closing.wait(30) and None) as served:
        language_model = model(served.url)
        for _ in range(4):
            with pytest.raises(GenerationError) as caught:
                list(language_model.stream(MESSAGES, timeout_s=0.2, usage=Usage()))
            assert caught.value.reason == "timeout"
        language_model.close()


@pytest.mark.parametrize("bad", MISBEHAVIOURS, ids=lambda bad: bad.name)
def test_a_model_that_misbehaves_costs_bounded_time_and_memory_and_is_told_by_its_reason(bad: Misbehaviour) -> None:
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak begins here
    before = peak_kib()
    started = time.monotonic()
    with endpoint(bad.behave, raw=True) as served:
        language_model, usage, found, why = model(served.url), Usage(), [], None
        try:
            found.extend(
                filter(None, language_model.stream(MESSAGES, timeout_s=0.6 if bad.endless else 30, usage=usage))
            )
        except GenerationError as error:
            why = error.reason
        assert served.hung_up.wait(20) or not bad.endless, "the request was left running"
        language_model.close()
    assert (why, "".join(found)) == (bad.reason, bad.text)
    assert usage.as_dict() in (None, {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10})
    assert time.monotonic() - started < 25
    assert peak_kib() - before < 64 * 1024
    "".join(found).encode()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_since_the_prompt_would_go_with_it(status: int) -> None:
    with endpoint(says(*complete("stolen"))) as thief:
        moved = says(head(f"{status} Moved", f"location: {thief.url}/v1/chat/completions"))
        with endpoint(moved, raw=True) as served:
            assert reason(served.url) == ("refused", [])
        assert thief.requests == []


@pytest.mark.parametrize("parts", [(), (EVENTS,), (EVENTS, chunk("Half"))], ids=["connected", "begun", "in mid-stream"])
def test_closing_ends_the_request_at_once_while_the_model_is_silent(parts: tuple[bytes, ...]) -> None:
    with endpoint(hangs(*parts), raw=True) as served:
        language_model = model(served.url)
        pieces = language_model.stream(MESSAGES, timeout_s=60, usage=Usage())
        while next(pieces) is not None:
            pass
        assert served.requests
        pieces.close()
        assert served.hung_up.wait(5), "the request was left running"
        language_model.close()


def test_closing_the_client_ends_what_it_waits_for() -> None:
    with endpoint(hangs(EVENTS), raw=True) as served:
        language_model = model(served.url)
        pieces = language_model.stream(MESSAGES, timeout_s=60, usage=Usage())
        assert next(pieces) is None
        language_model.close()
        with pytest.raises(GenerationError, match="the service stops"):
            list(pieces)
        assert served.hung_up.wait(5)
