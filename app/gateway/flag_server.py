"""Flags of a flagd server: the stream that it keeps for in-process providers."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from openfeature.schemas.protobuf.flagd.sync.v1.sync_pb2 import SyncFlagsRequest
from openfeature.schemas.protobuf.flagd.sync.v1.sync_pb2_grpc import FlagSyncServiceStub

from app.gateway.flag_file import shipped
from app.gateway.flag_sources import Apply, Source

_FIRST_S = 2.0
"""How long a start waits for the server."""
_STREAM_S = 30.0
"""A stream is renewed after so long: each begins with all flags, so one that died unseen is found out."""
_PAUSE_S = (0.5, 1.5)
_CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.min_reconnect_backoff_ms", 5000),
)


class ServerSource(Source):
    """A flagd server's stream of flags (its port for in-process providers, 8015 by default), without TLS.

    Not the port that evaluates (8013): the flags are then in this process, so that a request waits for nobody, and
    they can be checked before they count and kept when the server is away.
    """

    def __init__(self, address: str, apply: Apply) -> None:
        super().__init__(apply)
        self.name = f"flagd at {address}"
        self._address = address
        self._heard = threading.Event()
        self._known = False
        self._call: grpc.Call | None = None

    def open(self) -> None:
        self._apply(shipped(), {})
        self._start(self._listen)
        if not self._heard.wait(_FIRST_S):
            self._away("it has not answered yet")

    def close(self) -> None:
        self._stopped.set()
        if self._call is not None:
            self._call.cancel()
        super().close()

    def _listen(self) -> None:
        while not self._stopped.is_set():
            self._follow()
            self._stopped.wait(random.uniform(*_PAUSE_S))  # noqa: S311 - workers shall not come all at once

    def _follow(self) -> None:
        """One stream, to its end."""
        heard = False
        try:
            # its own connection: one that is dead without knowing must not be taken again
            with grpc.insecure_channel(self._address, options=_CHANNEL) as channel:
                call = FlagSyncServiceStub(channel).SyncFlags(SyncFlagsRequest(provider_id="braid"), timeout=_STREAM_S)
                self._call = call
                if self._stopped.is_set():
                    return
                for answer in call:
                    heard = True
                    self._receive(answer.flag_configuration.encode(), MessageToDict(answer.sync_context))
            reason = "it ended the stream"
        except grpc.RpcError as error:
            reason = error.code().name
        finally:
            self._call = None
        renewed = heard and reason in ("DEADLINE_EXCEEDED", "it ended the stream")
        if not renewed and not self._stopped.is_set():
            self._away(reason)

    def _receive(self, content: bytes, attributes: Mapping[str, Any]) -> None:
        refusal = f"the flagd server sends feature flags that can't be used: {self._kept()}"
        self._known = self._offer(content, attributes, refusal, shared=True) or self._known
        self._heard.set()

    def _away(self, reason: str) -> None:
        self._seen = None  # whatever it sends next counts anew
        self._warn("unreachable", f"the flagd server of the feature flags does not answer: {self._kept()}", reason)
        self._heard.set()

    def _kept(self) -> str:
        return "the last that it sent stay" if self._known else "those that ship with Braid count"
