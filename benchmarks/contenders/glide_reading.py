"""What both flavours of valkey-glide have in common."""

from typing import Any


def first_stream(reply: Any) -> dict[bytes, Any]:
    """Return the entries of a reply for one stream, by their ids."""
    [messages] = reply.values()
    found: dict[bytes, Any] = messages
    return found


def entry_fields(pairs: list[list[bytes]]) -> dict[str, str]:
    """Return what was published from an entry."""
    return {name.decode(): value.decode() for name, value in pairs}
