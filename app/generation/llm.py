"""A language model behind an OpenAI-compatible API."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx2
import openai
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from app.breaker import Breaker, BreakerOpen, Trial
from app.config import Settings
from app.errors import GenerationError

_CONNECT_S = 5.0
_FAILURES, _REST_S = 2, 3.0
_FAIR_S = 5.0
"""Silence for less says nothing about the model: the caller had no more time."""
_AWAY = frozenset({502, 503, 504})


@dataclass(slots=True)
class Usage:
    """Tokens as the endpoint counted them; None until, or unless, it says."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def as_dict(self) -> dict[str, int] | None:
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }


class LanguageModel:
    """Streams completions. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Prepare the client for ``BRAID_LLM_URL`` (with or without ``/v1``); nothing is sent yet."""
        url = (settings.llm_url or "").rstrip("/")
        for tail in ("/chat/completions", "/completions"):
            url = url.removesuffix(tail)
        if not url.rsplit("/", 1)[-1].startswith("v"):
            url += "/v1"
        self.name = settings.llm_model
        self._max_tokens = settings.llm_max_tokens
        self._breaker = Breaker("the language model", failures=_FAILURES, rest_s=_REST_S, label="llm")
        # an endpoint without keys takes any; the library wants one
        key = settings.llm_api_key.get_secret_value() if settings.llm_api_key else "none"
        self._client = OpenAI(base_url=url, api_key=key, max_retries=0)

    def stream(self, messages: Sequence[dict[str, str]], *, timeout_s: float, usage: Usage) -> Iterator[str]:
        """Pieces of the completion as they come; closing the iterator ends the request. Fills `usage`.

        A thread of its own reads the response: the time limit then holds whatever the endpoint sends or does not
        send (the HTTP client's limit is one of each read, which a line of comment every few seconds never meets).

        Args:
            messages: role and content.
            timeout_s: of the whole completion.
            usage: filled when the endpoint tells.

        Raises:
            GenerationError: reason ``unreachable``, ``timeout``, ``refused`` (an error status), ``broken-off``,
                ``bad-answer``, or ``unavailable`` (it was away a moment ago and was not asked).
        """
        try:
            with self._breaker.calling() as call:
                yield from self._watched(messages, timeout_s, usage, call)
        except BreakerOpen as error:
            raise GenerationError("the language model was away a moment ago", reason="unavailable") from error

    def _watched(
        self, messages: Sequence[dict[str, str]], timeout_s: float, usage: Usage, call: Trial
    ) -> Iterator[str]:
        """The pieces, and what they tell of the endpoint: the first one is all that its being there needs."""
        until = time.monotonic() + timeout_s
        reading = _Reading(self._pieces(messages, timeout_s, usage, call))
        try:
            for piece in reading.pieces(until):
                call.ok()
                yield piece
        except queue.Empty:
            _silent(call, timeout_s)
            raise GenerationError(
                f"the language model did not end its answer within {timeout_s:.1f} s", reason="timeout"
            ) from None
        finally:
            reading.stop()

    def _pieces(
        self, messages: Sequence[dict[str, str]], timeout_s: float, usage: Usage, call: Trial
    ) -> Iterator[str | openai.Stream[ChatCompletionChunk]]:
        """First the open stream, so that it can be closed from outside, then the pieces of text."""
        typed: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": m["content"]}
            if m["role"] == "system"
            else {"role": "user", "content": m["content"]}
            for m in messages
        ]
        try:
            with self._client.chat.completions.create(
                model=self.name,
                messages=typed,
                max_tokens=self._max_tokens,
                temperature=0.0,
                stream=True,
                stream_options={"include_usage": True},
                timeout=openai.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
            ) as chunks:
                yield chunks
                complete = False
                for chunk in chunks:
                    if chunk.usage is not None:
                        usage.prompt_tokens = chunk.usage.prompt_tokens
                        usage.completion_tokens = chunk.usage.completion_tokens
                    for choice in chunk.choices[:1]:
                        complete = complete or choice.finish_reason is not None
                        if choice.delta.content:
                            yield choice.delta.content
            if not complete:
                raise GenerationError("the language model's answer broke off", reason="broken-off")
        except (openai.APITimeoutError, httpx2.TimeoutException) as error:
            _silent(call, timeout_s)
            raise GenerationError(
                f"the language model did not answer within {timeout_s:.1f} s", reason="timeout"
            ) from error
        except openai.APIStatusError as error:
            (call.failed if error.status_code in _AWAY else call.ok)()
            raise GenerationError(
                f"the language model's endpoint answered {error.status_code}; "
                "check BRAID_LLM_URL, BRAID_LLM_MODEL and BRAID_LLM_API_KEY",
                reason="refused",
            ) from error
        except openai.APIConnectionError as error:
            call.failed()
            raise GenerationError(
                "the language model can't be reached; check BRAID_LLM_URL", reason="unreachable"
            ) from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            _silent(call, _FAIR_S)  # unless something came before
            raise GenerationError("the language model's answer broke off", reason="broken-off") from error
        except (openai.OpenAIError, ValueError, AttributeError, TypeError) as error:
            # endpoints that are not what they say they are: JSON that is none, fields of another shape
            raise GenerationError(
                "the language model's endpoint sent something unusable", reason="bad-answer"
            ) from error

    def close(self) -> None:
        self._client.close()


def _silent(call: Trial, timeout_s: float) -> None:
    """Nothing at all came, in a time in which something should have."""
    if call.outcome is None and timeout_s >= _FAIR_S:
        call.failed()


class _Reading:
    """Reads a completion in a thread, so that its reader can stop waiting at any moment."""

    def __init__(self, source: Iterator[str | openai.Stream[ChatCompletionChunk]]) -> None:
        self._source = source
        self._found: queue.SimpleQueue[str | GenerationError | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopped = False
        self._stream: openai.Stream[ChatCompletionChunk] | None = None
        threading.Thread(target=self._read, name="braid-llm", daemon=True).start()

    def pieces(self, until: float) -> Iterator[str]:
        """The pieces; raises queue.Empty at `until` (monotonic seconds)."""
        while True:
            item = self._found.get(timeout=max(0.0, until - time.monotonic()))
            if item is None:
                return
            if isinstance(item, GenerationError):
                raise item
            yield item

    def stop(self) -> None:
        """End the request, wherever it stands."""
        with self._lock:
            self._stopped = True
            if self._stream is not None:
                self._stream.close()

    def _read(self) -> None:
        try:
            for item in self._source:
                if isinstance(item, str):
                    self._found.put(item)
                    continue
                with self._lock:
                    self._stream = item
                    if self._stopped:
                        return
            self._found.put(None)
        except GenerationError as error:
            self._found.put(error)
