"""A little identity provider on loopback: it publishes keys over real HTTP, and signs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER, AUDIENCE = "https://login.example.org/", "braid"

_MADE = {
    "rsa": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "small-rsa": lambda: rsa.generate_private_key(public_exponent=65537, key_size=1024),  # noqa: S505
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
_ALGORITHMS = {
    "rsa": jwt.algorithms.RSAAlgorithm,
    "small-rsa": jwt.algorithms.RSAAlgorithm,
    "p256": jwt.algorithms.ECAlgorithm,
    "p384": jwt.algorithms.ECAlgorithm,
    "ed25519": jwt.algorithms.OKPAlgorithm,
}


class SigningKey:
    """A private key with an id; `kind` as in `_MADE`."""

    def __init__(self, kind: str, kid: str) -> None:
        self.kid, self.kind = kid, kind
        self.private: Any = _MADE[kind]()

    def jwk(self, **more: Any) -> dict[str, Any]:
        """The public half, as it is published."""
        found = json.loads(_ALGORITHMS[self.kind].to_jwk(self.private.public_key()))  # type: ignore[attr-defined]
        return {**found, "kid": self.kid, "use": "sig", **more}


class Provider:
    """What is published is `keys`, or else `answer` (status, body); `asked` counts fetches, which wait for `gate`."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.asked = 0
        self.answer: tuple[int, bytes] | None = None
        self.headers: dict[str, str] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.url = ""

    def body(self) -> tuple[int, bytes]:
        """What the next fetch gets."""
        self.asked += 1
        self.gate.wait()
        return self.answer or (200, json.dumps({"keys": self.keys}).encode())


def token(key: SigningKey, algorithm: str = "RS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token as the provider would make it; a claim that is None is left out."""
    now = int(time.time())
    whole = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 300, "tenant": "acme",
        "groups": ["staff"], "roles": ["search"], **claims,
    }  # fmt: skip
    whole = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(whole, key.private, algorithm, headers={"kid": key.kid, **(headers or {})})


@contextmanager
def running_provider() -> Iterator[Provider]:
    """A provider that listens."""
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = provider.body()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **provider.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    provider.url = f"http://127.0.0.1:{server.server_port}/keys"
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
