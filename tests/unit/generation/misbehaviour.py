"""What the servers of language models do on their worst days: each behaviour with its outcome.

They are behaviours of a `raw` endpoint. What an answer made with them is worth is never quoted as quality.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.unit.generation.endpoint import Behaviour, Write, chunk, complete

EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
MEGABYTE = 1024 * 1024
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)> **[1]** ![x](http://198.51.100.1/?q=1)"


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """`reason` is why generation failed, None if there is an answer; `text` is what arrived before."""

    name: str
    behave: Behaviour
    reason: str | None
    text: str = ""
    endless: bool = False
    """It ends by the time limit."""


def says(*parts: bytes, head: bytes = EVENTS) -> Behaviour:
    """Writes the parts and hangs up."""

    def behave(write: Write, _: threading.Event) -> None:
        write(head)
        for part in parts:
            write(part)

    return behave


def hangs(*parts: bytes) -> Behaviour:
    """Writes the parts and is silent."""

    def behave(write: Write, closing: threading.Event) -> None:
        for part in parts:
            write(part)
        closing.wait(60)

    return behave


def repeats(part: bytes, *, times: int = 10**9, pause_s: float = 0.0, head: bytes = EVENTS) -> Behaviour:
    """Writes a part again and again."""

    def behave(write: Write, closing: threading.Event) -> None:
        write(head)
        for _ in range(times):
            write(part)
            if closing.wait(pause_s):
                return

    return behave


def event(body: object) -> bytes:
    """An event with any body."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def delta(found: object, finish: str | None = None) -> bytes:
    """An event with any delta."""
    return event({"id": "c", "object": "x", "choices": [{"index": 0, "delta": found, "finish_reason": finish}]})


def usage(found: object) -> Iterable[bytes]:
    """A good answer with any usage."""
    return chunk("Yes [1]."), chunk(finish="stop"), event({"id": "c", "choices": [], "usage": found})


def head(status: str, *headers: str) -> bytes:
    """Status line and headers."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "connection: close", "", ""]).encode()


def bomb(head: bytes) -> Behaviour:
    """Writes a quarter of a gigabyte, compressed a thousand times."""

    def behave(write: Write, _: threading.Event) -> None:
        compressor = zlib.compressobj(1, wbits=31)
        write(head)
        for _number in range(256):
            write(compressor.compress(bytes(MEGABYTE)))
        write(compressor.flush())

    return behave


DEEP = b"data: " + b"[" * 100_000 + b"\n\n"
NESTED = b'data: {"choices": [{"delta": {"content": ' + b"[" * 900 + b"]" * 900 + b"}}]}\n\n"
CHUNKED = head("200 OK", "content-type: text/event-stream", "transfer-encoding: chunked")
TALE = chunk("Once upon a time " * 1000)
COUNTS: dict[str, Any] = {
    "text": "many",
    "counts as text": {"prompt_tokens": "7", "completion_tokens": "x", "total_tokens": "?"},
    "huge": {"prompt_tokens": 10**300, "completion_tokens": -1, "total_tokens": 10**300},
    "null": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
    "a list": [7, 3],
    "fractions": {"prompt_tokens": 1e300, "completion_tokens": True, "total_tokens": 0.5},
}

MISBEHAVIOURS = (
    Misbehaviour("hangs before its headers", hangs(), "timeout", endless=True),
    Misbehaviour("hangs in its headers", hangs(EVENTS[:-4]), "timeout", endless=True),
    Misbehaviour("hangs after its headers", hangs(EVENTS), "timeout", endless=True),
    Misbehaviour("hangs in mid-stream", hangs(EVENTS, chunk("Half")), "timeout", "Half", endless=True),
    Misbehaviour("comments for ever", repeats(b": still here\n\n", pause_s=0.02), "timeout", endless=True),
    Misbehaviour("closes at once", says(head=b""), "unreachable"),
    Misbehaviour(
        "headers without end", repeats(b"x-more: " + b"y" * 60_000 + b"\r\n", head=EVENTS[:-2]), "unreachable"
    ),
    Misbehaviour("dies in mid-stream", says(chunk("Half")), "broken-off", "Half"),
    Misbehaviour("dies in an event", says(chunk("Half"), chunk("other half")[:-30]), "broken-off", "Half"),
    Misbehaviour("broken chunks", says(b"5\r\ndata\r\nZZ\r\n", head=CHUNKED), "broken-off"),
    Misbehaviour("half a pair", says(delta({"content": "A \ud83d B"}), *complete(" [1].")), None, "A \ufffd B [1]."),
    Misbehaviour("half a pair at the end", says(*complete("A \ud83d")), None, "A \ufffd"),
    Misbehaviour("a pair in two events", says(*complete("A \ud83d", "\ude00 B [1].")), None, "A \U0001f600 B [1]."),
    *(Misbehaviour(f"usage: {name}", says(*usage(found)), None, "Yes [1].") for name, found in COUNTS.items()),
    Misbehaviour("a number of 10,000 digits", says(b'data: {"choices": ' + b"9" * 10_000 + b"}\n\n"), "bad-answer"),
    Misbehaviour("nesting of 100,000", says(DEEP), "bad-answer"),
    Misbehaviour("nesting of 900", says(NESTED), "bad-answer"),
    Misbehaviour("content as a list", says(delta({"content": [{"type": "text", "text": "Yes."}]})), "bad-answer"),
    Misbehaviour("content as a number", says(delta({"content": 42})), "bad-answer"),
    Misbehaviour("no delta", says(delta(None)), "bad-answer"),
    Misbehaviour("choices: null", says(event({"choices": None})), "bad-answer"),
    Misbehaviour("not an object", says(event("yes")), "bad-answer"),
    Misbehaviour("invalid UTF-8", says(b'data: {"choices": "\xff\xfe"}\n\n'), "bad-answer"),
    Misbehaviour("an error as an event", says(event({"error": {"message": "no", "code": 5}})), "bad-answer"),
    Misbehaviour(
        "an error with 200",
        says(b'{"error": "no"}', head=head("200 OK", "content-type: application/json")),
        "bad-answer",
    ),
    Misbehaviour("a web page", says(b"<html>Welcome", head=head("200 OK", "content-type: text/html")), "bad-answer"),
    Misbehaviour(
        "a whole completion",
        says(b'{"choices": []}', head=head("200 OK", "content-type: application/json")),
        "bad-answer",
    ),
    Misbehaviour("roles only", says(*[delta({"role": "assistant"})] * 9, chunk(finish="stop")), None),
    Misbehaviour(
        "tool calls",
        says(delta({"tool_calls": [{"index": 0, "function": {"name": "rm", "arguments": "/"}}]}, "tool_calls")),
        None,
    ),
    Misbehaviour("markup", says(*complete(MARKUP)), None, MARKUP),
    Misbehaviour("an answer without end", repeats(TALE, times=6000), "too-long", ("Once upon a time " * 964)[:16384]),
    Misbehaviour("a line without end", repeats(b"x" * MEGABYTE, times=100), "too-long"),
    Misbehaviour("an event without end", repeats(b"data: " + b"x" * MEGABYTE + b"\n", times=100), "too-long"),
    Misbehaviour("comments of 100 MB", repeats(b": " + b"x" * MEGABYTE + b"\n", times=100), "too-long"),
    Misbehaviour("an error of 100 MB", repeats(b"x" * MEGABYTE, times=100, head=head("500 No")), "too-long"),
    Misbehaviour(
        "a compressed bomb",
        bomb(head("200 OK", "content-type: text/event-stream", "content-encoding: gzip")),
        "bad-answer",
    ),
    Misbehaviour("a compressed bomb as an error", bomb(head("500 No", "content-encoding: gzip")), "refused"),
)
