"""Names of what belongs to a stream: keys in its Cluster slot, and groups for redriving."""

from typing import Self
from urllib.parse import quote

import attrs
from redis.crc import key_slot

from step_redis.errors import ConfigurationError

__all__ = [
    "REDRIVE_PREFIX",
    "GroupKeys",
    "dead_letter_stream",
    "delayed_key",
    "derived_key",
    "redrive_group",
    "same_slot",
]

REDRIVE_PREFIX = "_step:redrive:"
"""What the names of groups for redriving begin with; they receive nothing by themselves."""


def derived_key(stream: str, suffix: str) -> str:
    """Return the name of a key beside a stream, in its slot: ``{orders}.dead`` for ``orders``.

    A name with a hash tag keeps it: ``app:{eu}:orders.dead``.

    Raises:
        ConfigurationError: The name has braces that are no hash tag.
    """
    before, opened, rest = stream.partition("{")
    tag, closed, _ = rest.partition("}")
    if opened and closed and tag:
        return f"{stream}.{suffix}"
    if opened or "}" in before:
        raise ConfigurationError(
            f"the stream's name {stream!r} has braces that are no hash tag, so that no key beside"
            " it can share its Cluster slot: use a name without braces, or like 'app:{tag}:name'"
        )
    return f"{{{stream}}}.{suffix}"


def dead_letter_stream(stream: str) -> str:
    """Return the stream that takes a stream's dead letters unless the user names another."""
    return derived_key(stream, "dead")


def delayed_key(stream: str) -> str:
    """Return the key that holds the messages of a stream that are not due yet."""
    return derived_key(stream, "delayed")


def redrive_group(stream: str, group: str) -> str:
    """Return the group on a dead-letter stream that takes one group's redriven messages."""
    return f"{REDRIVE_PREFIX}{quote(group, safe='')}@{stream}"


def same_slot(stream: str, other: str) -> bool:
    """Whether two keys lie in one Cluster slot, so that one script may write both."""
    slot: int = key_slot(stream.encode())
    return slot == key_slot(other.encode())


@attrs.frozen
class GroupKeys:
    """The keys that the scripts of one group use."""

    stream: str
    leases: str
    due: str
    attempts: str
    checkpoint: str
    delayed: str
    """Of the stream, whichever the group."""

    @classmethod
    def of(cls, stream: str, group: str) -> Self:
        """Return the keys of a group of a stream."""
        return cls(
            stream=stream,
            leases=derived_key(stream, f"leases:{group}"),
            due=derived_key(stream, f"due:{group}"),
            attempts=derived_key(stream, f"attempts:{group}"),
            checkpoint=derived_key(stream, f"checkpoint:{group}"),
            delayed=delayed_key(stream),
        )

    @property
    def group(self) -> tuple[str, ...]:
        """What scripts of the group take as their first keys."""
        return self.stream, self.leases, self.due, self.attempts
