"""What the server remembers of a key that the user gave a message; no I/O."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from step_redis.codec import HEADER_PREFIX, TYPES
from step_redis.keys import derived_key

__all__ = ["dedup_key", "fingerprint"]

_DIGEST_BYTES = 12


def dedup_key(stream: str, dedup_id: str) -> str:
    """Return the key that remembers what was published to a stream under the user's key."""
    return derived_key(stream, f"dedup:{dedup_id}")


def fingerprint(fields: Sequence[bytes]) -> bytes:
    """Return 16 characters that tell one message from another, whatever order its keys are in.

    ``fields`` are those that it is stored as. Headers among them do not count: they may differ each
    time that it is published, as those for tracing do.
    """
    pairs = dict(zip(fields[::2], fields[1::2], strict=True))
    types: dict[str, str] = json.loads(pairs.get(TYPES.encode(), b"{}"))
    digest = blake2b(digest_size=_DIGEST_BYTES)
    for name, value in sorted(pairs.items()):
        if name.startswith(HEADER_PREFIX.encode()):
            continue
        is_json = name == TYPES.encode() or types.get(name.decode()) == "j"
        for part in (name, _sorted_json(value) if is_json else value):
            digest.update(b"%d:%b" % (len(part), part))
    return urlsafe_b64encode(digest.digest())


def _sorted_json(stored: bytes) -> bytes:
    value: Any = json.loads(stored)
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
