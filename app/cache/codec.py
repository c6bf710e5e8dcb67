"""Format of cache entries: JSON with a checksum. Foreign data under our keys reads as missing, never as code.

The checksum is keyed if the service has a secret, and covers the entry's key, so that entries that others wrote, moved
or truncated are rejected.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import orjson

from app.config.service import AccessSettings

_MAGIC = b"braid1"
_DIGEST = 16
MOST_BYTES = 1024 * 1024
"""Maximum bytes of an entry; larger ones are not stored."""

Json = dict[str, Any]


class EntryCodec:
    """Writes and reads the values of all caches."""

    def __init__(self, access: AccessSettings) -> None:
        secret = access.keys_secret.get_secret_value().encode() if access.keys_secret else b""
        self._key = hashlib.blake2b(secret, digest_size=32, person=b"braid-cache").digest()

    def pack(self, key: str, value: Json) -> bytes | None:
        """Return `value` as bytes; None if it is too large or not valid JSON (an unpaired surrogate)."""
        try:
            return self.seal(key, orjson.dumps(value))
        except orjson.JSONEncodeError:
            return None

    def seal(self, key: str, payload: bytes) -> bytes | None:
        """Return `payload` with its checksum; None if it is too large."""
        if len(payload) > MOST_BYTES:
            return None
        return _MAGIC + self._sign(key, payload) + payload

    def unpack(self, key: str, data: object) -> Json | None:
        """Return the value given to `pack`; None if the bytes are not its output for this key."""
        payload = self.open(key, data)
        if payload is None:
            return None
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError:  # sealed by us, but not as JSON
            return None
        return value if isinstance(value, dict) else None

    def open(self, key: str, data: object) -> bytes | None:
        """Return the payload given to `seal`; None if the bytes are not its output for this key."""
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
    """Return a key name for `parts` (any JSON), 40 hex digits: equal only for equal parts, however they are split."""
    return hashlib.blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=20).hexdigest()
