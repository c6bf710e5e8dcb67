"""Client of a language model behind an OpenAI-compatible API.

One thread with an event loop reads all completions, so that a stream costs no thread here, and a request can be ended
at any moment: while it connects, before the first byte of its answer, in its middle. What arrives is untrusted: its
size, its shape and its text are bounded and checked.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from app.addresses import openai_base
from app.breaker import Breaker, BreakerOpen, Trial
from app.config.retrieval import LlmSettings
from app.errors import GenerationError

TICK_S = 0.4
"""Seconds of silence after which `LanguageModel.stream` lets its consumer look after its caller."""
_CONNECT_S = 5.0
_FAILURES, _REST_S = 2, 3.0
_FAIR_S = 5.0
"""Seconds of silence below which the model is not to blame: the caller had no more time."""
_UNAVAILABLE = frozenset({502, 503, 504})
_CONNECTIONS = 4096
"""Connections at once, more than `BRAID_LLM_CONCURRENCY` allows."""
_TOKEN_CHARACTERS = 32
"""Maximum characters of a token; an answer of more than `BRAID_LLM_MAX_TOKENS` times as many ignores that bound."""
_TOKEN_BYTES, _LEAST_BYTES = 4096, 1024**2
"""Maximum bytes of an answer for each token, which arrives in an event of a few hundred, and beside them (comments)."""
_MOST_TOKENS = 2**31
"""Number of tokens above which a count is nonsense."""


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
        self._client = AsyncOpenAI(
            base_url=openai_base(llm.url or ""),
            # the library requires a key; an endpoint without keys accepts any
            api_key=llm.api_key.get_secret_value() if llm.api_key else "none",
            max_retries=0,
            # a compressed answer could be a thousand times larger than what arrives
            default_headers={"Accept-Encoding": "identity"},
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False,  # the prompt and its passages are for nobody else
                limits=httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=16),
                event_hooks={"response": [self._bound]},
            ),
        )
        self._loop = _LoopThread(self._client.close)

    def stream(
        self, messages: Sequence[dict[str, str]], *, timeout_s: float, usage: Usage
    ) -> Generator[str | None, None, None]:
        """Yield pieces of the completion as they arrive, and None after each `TICK_S` of silence; closing the iterator
        ends the request. Fills `usage`.

        The time limit holds whatever the endpoint does. (The HTTP client's limit applies to each read; a comment line
        every few seconds never exceeds it.)

        Args:
            timeout_s: seconds for the whole completion.
            usage: filled when the endpoint reports it.

        Raises:
            GenerationError: reason ``unreachable``, ``timeout``, ``refused`` (an error status or a redirect),
                ``broken-off``, ``bad-answer``, ``too-long``, or ``unavailable`` (not called, since it failed recently).
        """
        try:
            with self._breaker.calling() as call:
                yield from self._report_outcome(messages, timeout_s, usage, call)
        except BreakerOpen as error:
            raise GenerationError(
                "the language model failed a moment ago: try again in a few seconds", reason="unavailable"
            ) from error

    def close(self) -> None:
        """End all requests, and close the connections."""
        self._loop.close()

    def _report_outcome(
        self, messages: Sequence[dict[str, str]], timeout_s: float, usage: Usage, call: Trial
    ) -> Generator[str | None, None, None]:
        """Yield the pieces; the first one reports success to the breaker."""
        until = time.monotonic() + timeout_s
        found: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        reading = self._loop.start(self._read(messages, timeout_s, usage, call, found.put))
        reading.add_done_callback(lambda _: found.put(None))
        try:
            while (left := until - time.monotonic()) > 0:
                try:
                    piece = found.get(timeout=min(left, TICK_S))
                except queue.Empty:
                    yield None
                    continue
                if piece is None:
                    if reading.cancelled():
                        raise GenerationError("the service stops", reason="broken-off")
                    reading.result()
                    return
                call.ok()
                yield piece
        finally:
            reading.cancel()
        _report_silence(call, timeout_s)
        raise GenerationError(f"the language model did not end its answer within {timeout_s:.1f} s", reason="timeout")

    async def _read(
        self,
        messages: Sequence[dict[str, str]],
        timeout_s: float,
        usage: Usage,
        call: Trial,
        put: Callable[[str], None],
    ) -> None:
        """Put the pieces of one completion. Raises GenerationError."""
        begun = False
        typed: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": m["content"]}
            if m["role"] == "system"
            else {"role": "user", "content": m["content"]}
            for m in messages
        ]
        try:
            async with await self._client.chat.completions.create(
                model=self.name,
                messages=typed,
                max_tokens=self._max_tokens,
                temperature=0.0,
                stream=True,
                stream_options={"include_usage": True},
                timeout=openai.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
            ) as chunks:
                begun = True
                await self._put_pieces(chunks, usage, put)
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
        except (openai.APIConnectionError, httpx2.HTTPError, httpx2.StreamError) as error:
            if not begun:
                call.failed()
                raise GenerationError(
                    "the language model can't be reached; check BRAID_LLM_URL", reason="unreachable"
                ) from error
            _report_silence(call, _FAIR_S)  # unless something arrived before
            raise GenerationError("the language model's answer broke off", reason="broken-off") from error
        except (openai.OpenAIError, ValueError, AttributeError, TypeError, RecursionError) as error:
            # endpoints that are not what they claim: invalid JSON, fields of another shape, endless nesting
            raise GenerationError(
                "the language model's endpoint sent something unusable", reason="bad-answer"
            ) from error

    async def _put_pieces(
        self, chunks: openai.AsyncStream[ChatCompletionChunk], usage: Usage, put: Callable[[str], None]
    ) -> None:
        """Put the pieces of text. Raises GenerationError, and whatever chunks of another shape raise."""
        complete, held, left = False, "", self._max_tokens * _TOKEN_CHARACTERS
        async for chunk in chunks:
            if chunk.usage is not None:
                usage.prompt_tokens = _count(getattr(chunk.usage, "prompt_tokens", None))
                usage.completion_tokens = _count(getattr(chunk.usage, "completion_tokens", None))
            for choice in chunk.choices[:1]:
                complete = complete or choice.finish_reason is not None
                text, held = _pair_surrogates(held + (choice.delta.content or ""))
                if text:
                    put(text[:left])
                    left -= len(text)
                if left < 0:
                    raise _too_long()
        if held:
            put("\ufffd")
        if complete:
            return
        if "event-stream" not in chunks.response.headers.get("Content-Type", ""):
            raise ValueError("not server-sent events")
        raise GenerationError("the language model's answer broke off", reason="broken-off")

    async def _bound(self, response: httpx2.Response) -> None:
        """Bound what is read of a response, whatever it claims to be."""
        response.headers.pop("Content-Encoding", None)  # it was asked for none, and none is decoded
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _BoundedBody(response.stream, _LEAST_BYTES + self._max_tokens * _TOKEN_BYTES)


class _BoundedBody(httpx2.AsyncByteStream):
    """The body of a response, up to `left` bytes. Raises GenerationError beyond."""

    def __init__(self, body: httpx2.AsyncByteStream, left: int) -> None:
        self._body = body
        self._left = left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._body:
            self._left -= len(data)
            if self._left < 0:
                raise _too_long()
            yield data

    async def aclose(self) -> None:
        await self._body.aclose()


class _LoopThread:
    """An event loop in a thread of its own, which the first call starts. Thread-safe."""

    def __init__(self, at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Create it; `at_end` runs in the loop before it ends."""
        self._at_end = at_end
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._running: set[asyncio.Task[Any] | None] = set()
        """Strong references: the loop itself has weak ones, and a request in its clean-up has no other."""

    def start(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        """Start `work` in the loop; cancelling the result cancels the work."""
        with self._lock:
            if self._loop is None:
                begun: Future[asyncio.AbstractEventLoop] = Future()
                self._thread = threading.Thread(target=self._serve, args=(begun,), name="braid-llm", daemon=True)
                self._thread.start()
                self._loop = begun.result()
            return asyncio.run_coroutine_threadsafe(self._run(work), self._loop)

    def close(self) -> None:
        """Cancel all work and end the thread."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(self._ends.set)
            self._thread.join()

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.current_task()
        self._running.add(task)
        try:
            await work
        finally:
            self._running.discard(task)

    def _serve(self, begun: Future[asyncio.AbstractEventLoop]) -> None:
        async def wait() -> None:
            self._ends = asyncio.Event()
            begun.set_result(asyncio.get_running_loop())
            await self._ends.wait()
            await self._at_end()

        asyncio.run(wait())  # which cancels what is left


def _report_silence(call: Trial, timeout_s: float) -> None:
    """Report a failure if nothing arrived in a time in which something should have."""
    if call.outcome is None and timeout_s >= _FAIR_S:
        call.failed()


def _too_long() -> GenerationError:
    return GenerationError("the language model's answer exceeds BRAID_LLM_MAX_TOKENS many times", reason="too-long")


def _count(value: object) -> int | None:
    """Return a count of tokens if it can be one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS else None


def _pair_surrogates(text: str) -> tuple[str, str]:
    """Return valid text, and a last half of a pair whose other half may follow. Raises AttributeError if it is none."""
    cut = len(text) - ("\ud800" <= text[-1:] <= "\udbff")
    return text[:cut].encode("utf-16", "surrogatepass").decode("utf-16", "replace"), text[cut:]
