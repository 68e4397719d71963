"""Sealed tokens: positions in pages and watches. Callers keep them, but cannot read, alter or use them elsewhere."""

import base64
import binascii
import hashlib
import hmac
import json

MARK_BYTES = 16

TOKEN_LENGTH = 8192
"""The longest accepted token, in characters. The server's own tokens are shorter."""

Position = list[int | str]


class Sealer:
    """Seals positions with a key. `purpose` and `scope` must be the same when a token comes back.

    A token consists of a mark (a keyed hash) and the position, which is encrypted with the mark as the nonce (a
    synthetic nonce, as in RFC 5297). So equal positions have equal tokens, and nobody can read a position.
    """

    def __init__(self, key: bytes) -> None:
        self._marking = hashlib.blake2b(b"token marks", key=key).digest()
        self._encrypting = hashlib.blake2b(b"token encryption", key=key).digest()

    def seal(self, purpose: str, scope: str, position: Position) -> str:
        """The token of a position."""
        body = json.dumps(position, separators=(",", ":")).encode()
        mark = self._mark(purpose, scope, body)
        return _encode(mark + self._encrypted(mark, body))

    def open(self, purpose: str, scope: str, token: str) -> Position | None:
        """The position, or None if this is not a token of this server for this purpose and scope."""
        if len(token) > TOKEN_LENGTH:
            return None
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if _encode(raw) != token:  # Base64 has several spellings of the same bytes.
            return None
        mark, encrypted = raw[:MARK_BYTES], raw[MARK_BYTES:]
        body = self._encrypted(mark, encrypted)
        if not hmac.compare_digest(mark, self._mark(purpose, scope, body)):
            return None
        position: Position = json.loads(body)
        return position

    def _mark(self, purpose: str, scope: str, body: bytes) -> bytes:
        text = b"\0".join((purpose.encode(), scope.encode(), body))
        return hashlib.blake2b(text, key=self._marking, digest_size=MARK_BYTES).digest()

    def _encrypted(self, mark: bytes, body: bytes) -> bytes:
        """The body XOR a stream of bytes from the key and the mark. The same operation decrypts."""
        stream = b""
        while len(stream) < len(body):
            block = mark + len(stream).to_bytes(4, "big")
            stream += hashlib.blake2b(block, key=self._encrypting).digest()
        return bytes(one ^ other for one, other in zip(body, stream, strict=False))


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class SessionHasher:
    """Turns a session id into a keyed hash, which is all that is stored of it. Nobody can recover the id from it."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(b"sessions", key=key).digest()

    def __call__(self, session_id: str) -> str:
        """32 hexadecimal digits."""
        return hashlib.blake2b(session_id.encode(), key=self._key, digest_size=16).hexdigest()
