"""What both flavours of redis-py have in common."""

from typing import Any


def bare(message: dict[str, str]) -> dict[Any, Any]:
    """Return a message as redis-py's types want it."""
    return message  # type: ignore[return-value, unused-ignore]


def entries(entry: tuple[bytes, dict[bytes, bytes]]) -> dict[str, str]:
    """Return what was published from an entry."""
    return {name.decode(): value.decode() for name, value in entry[1].items()}
