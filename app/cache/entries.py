"""How caches write: JSON behind a checksum. Whatever else lies under our keys reads as nothing, never as code.

The checksum is keyed where the service has a secret, and it covers the key under which the entry lies: an entry that
somebody else wrote, moved or cut is not one of ours.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import orjson

from app.config import Settings

_MAGIC = b"braid1"
_DIGEST = 16
MOST_BYTES = 1024 * 1024
"""Larger ones are not kept."""

Json = dict[str, Any]


class EntryCodec:
    """Writes and reads the values of all caches."""

    def __init__(self, settings: Settings) -> None:
        secret = settings.keys_secret.get_secret_value().encode() if settings.keys_secret else b""
        self._key = hashlib.blake2b(secret, digest_size=32, person=b"braid-cache").digest()

    def pack(self, key: str, value: Json) -> bytes | None:
        """`value` as bytes; None where it is too large, or no JSON (half a character in a text)."""
        try:
            return self.seal(key, orjson.dumps(value))
        except orjson.JSONEncodeError:
            return None

    def seal(self, key: str, payload: bytes) -> bytes | None:
        """`payload` behind its checksum; None where it is too large."""
        if len(payload) > MOST_BYTES:
            return None
        return _MAGIC + self._sign(key, payload) + payload

    def unpack(self, key: str, data: object) -> Json | None:
        """The value that `pack` was given; None where these bytes are not what it made for this key."""
        payload = self.open(key, data)
        if payload is None:
            return None
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError:  # sealed by us, though not as JSON
            return None
        return value if isinstance(value, dict) else None

    def open(self, key: str, data: object) -> bytes | None:
        """The payload that `seal` was given; None where these bytes are not what it made for this key."""
        if not isinstance(data, bytes) or not data.startswith(_MAGIC):
            return None
        signature, payload = data[len(_MAGIC) : len(_MAGIC) + _DIGEST], data[len(_MAGIC) + _DIGEST :]
        return payload if hmac.compare_digest(signature, self._sign(key, payload)) else None

    def _sign(self, key: str, payload: bytes) -> bytes:
        signed = hashlib.blake2b(key=self._key, digest_size=_DIGEST)
        signed.update(key.encode() + b"\0")
        signed.update(payload)
        return signed.digest()


def digest(*parts: object) -> str:
    """A key's name for `parts` (anything JSON), 40 hex digits: equal for equal parts, and never by joining them."""
    return hashlib.blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=20).hexdigest()
