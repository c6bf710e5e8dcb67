"""Client of a language model behind an OpenAI-compatible API."""

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

from app.addresses import openai_base
from app.breaker import Breaker, BreakerOpen, Trial
from app.config.retrieval import LlmSettings
from app.errors import GenerationError

_CONNECT_S = 5.0
_FAILURES, _REST_S = 2, 3.0
_FAIR_S = 5.0
"""Seconds of silence below which the model is not to blame: the caller had no more time."""
_UNAVAILABLE = frozenset({502, 503, 504})


@dataclass(slots=True)
class Usage:
    """Token counts from the endpoint; None unless reported."""

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

    def __init__(self, llm: LlmSettings) -> None:
        """Create the client for ``BRAID_LLM_URL`` (with or without ``/v1``); nothing is sent yet."""
        self.name = llm.model
        self._max_tokens = llm.max_tokens
        self._breaker = Breaker("the language model", failures=_FAILURES, rest_s=_REST_S, label="llm")
        # the library requires a key; an endpoint without keys accepts any
        key = llm.api_key.get_secret_value() if llm.api_key else "none"
        self._client = OpenAI(base_url=openai_base(llm.url or ""), api_key=key, max_retries=0)

    def stream(self, messages: Sequence[dict[str, str]], *, timeout_s: float, usage: Usage) -> Iterator[str]:
        """Yield pieces of the completion as they arrive; closing the iterator ends the request. Fills `usage`.

        A separate thread reads the response, so that the time limit holds whatever the endpoint does. (The HTTP
        client's limit applies to each read; a comment line every few seconds never exceeds it.)

        Args:
            timeout_s: seconds for the whole completion.
            usage: filled when the endpoint reports it.

        Raises:
            GenerationError: reason ``unreachable``, ``timeout``, ``refused`` (an error status), ``broken-off``,
                ``bad-answer``, or ``unavailable`` (it failed recently and was not called).
        """
        try:
            with self._breaker.calling() as call:
                yield from self._report_outcome(messages, timeout_s, usage, call)
        except BreakerOpen as error:
            raise GenerationError(
                "the language model failed a moment ago: try again in a few seconds", reason="unavailable"
            ) from error

    def _report_outcome(
        self, messages: Sequence[dict[str, str]], timeout_s: float, usage: Usage, call: Trial
    ) -> Iterator[str]:
        """Yield the pieces; the first one reports success to the breaker."""
        until = time.monotonic() + timeout_s
        reading = _CompletionReader(self._pieces(messages, timeout_s, usage, call))
        try:
            for piece in reading.pieces(until):
                call.ok()
                yield piece
        except queue.Empty:
            _report_silence(call, timeout_s)
            raise GenerationError(
                f"the language model did not end its answer within {timeout_s:.1f} s", reason="timeout"
            ) from None
        finally:
            reading.stop()

    def _pieces(
        self, messages: Sequence[dict[str, str]], timeout_s: float, usage: Usage, call: Trial
    ) -> Iterator[str | openai.Stream[ChatCompletionChunk]]:
        """Yield the open stream, so that it can be closed from outside, then the pieces of text."""
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
            _report_silence(call, timeout_s)
            raise GenerationError(
                f"the language model did not answer within {timeout_s:.1f} s", reason="timeout"
            ) from error
        except openai.APIStatusError as error:
            (call.failed if error.status_code in _UNAVAILABLE else call.ok)()
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
            _report_silence(call, _FAIR_S)  # unless something arrived before
            raise GenerationError("the language model's answer broke off", reason="broken-off") from error
        except (openai.OpenAIError, ValueError, AttributeError, TypeError) as error:
            # endpoints that are not what they claim: invalid JSON, fields of another shape
            raise GenerationError(
                "the language model's endpoint sent something unusable", reason="bad-answer"
            ) from error

    def close(self) -> None:
        self._client.close()


def _report_silence(call: Trial, timeout_s: float) -> None:
    """Report a failure if nothing arrived in a time in which something should have."""
    if call.outcome is None and timeout_s >= _FAIR_S:
        call.failed()


class _CompletionReader:
    """Reads a completion in a thread, so that the consumer can stop waiting at any time."""

    def __init__(self, source: Iterator[str | openai.Stream[ChatCompletionChunk]]) -> None:
        self._source = source
        self._found: queue.SimpleQueue[str | GenerationError | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopped = False
        self._stream: openai.Stream[ChatCompletionChunk] | None = None
        threading.Thread(target=self._read, name="braid-llm", daemon=True).start()

    def pieces(self, until: float) -> Iterator[str]:
        """Yield the pieces; raises queue.Empty at `until` (monotonic seconds)."""
        while True:
            item = self._found.get(timeout=max(0.0, until - time.monotonic()))
            if item is None:
                return
            if isinstance(item, GenerationError):
                raise item
            yield item

    def stop(self) -> None:
        """End the request, whatever its state."""
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
