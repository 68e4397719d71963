"""Sealed tokens: page and resume positions that callers carry, and cannot alter or use elsewhere."""

import base64
import binascii
import hashlib
import hmac
import json

SEAL_BYTES = 16

Position = list[int | str]


class Sealer:
    """Seals positions with a key; `purpose` and `scope` must be the same when a token comes back."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(b"tokens", key=key).digest()

    def seal(self, purpose: str, scope: str, position: Position) -> str:
        """The token that stands for a position."""
        body = json.dumps(position, separators=(",", ":")).encode()
        return _encode(self._mark(purpose, scope, body) + body)

    def open(self, purpose: str, scope: str, token: str) -> Position | None:
        """The position, or None if this is not a token of ours for that purpose and scope."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if _encode(raw) != token:  # Base64 has several spellings of the same bytes.
            return None
        mark, body = raw[:SEAL_BYTES], raw[SEAL_BYTES:]
        if not hmac.compare_digest(mark, self._mark(purpose, scope, body)):
            return None
        position: Position = json.loads(body)
        return position

    def _mark(self, purpose: str, scope: str, body: bytes) -> bytes:
        text = b"\0".join((purpose.encode(), scope.encode(), body))
        return hashlib.blake2b(text, key=self._key, digest_size=SEAL_BYTES).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class SessionHasher:
    """Turns a session id into what is stored of it: a keyed hash, from which nobody gets the id back."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(b"sessions", key=key).digest()

    def __call__(self, session_id: str) -> str:
        """32 hexadecimal digits."""
        return hashlib.blake2b(session_id.encode(), key=self._key, digest_size=16).hexdigest()
