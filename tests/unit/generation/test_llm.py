from __future__ import annotations

import socket
import threading
import time

import pytest

from app.config import load_settings
from app.errors import GenerationError
from app.generation.llm import LanguageModel, Usage
from tests.unit.generation.endpoint import Write, chunk, complete, endpoint, says

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def model(url: str) -> LanguageModel:
    return LanguageModel(load_settings(llm_url=url, llm_model="small").llm)


def reason(url: str, timeout_s: float = 5.0) -> tuple[str, list[str]]:
    """Why the completion failed, and what had come by then."""
    language_model = model(url)
    found: list[str] = []
    pieces = language_model.stream(MESSAGES, timeout_s=timeout_s, usage=Usage())
    with pytest.raises(GenerationError) as caught:
        found.extend(pieces)
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
