"""Commands built and replies read: values in, arguments out; bytes in, values out; no I/O."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from step_redis.arguments import shown
from step_redis.errors import ConfigurationError
from step_redis.lease import Held

__all__ = [
    "Argument",
    "Command",
    "EntryId",
    "Pending",
    "delivered",
    "entry_id",
    "expire",
    "is_entry_id",
    "message_ids",
    "new_deliveries",
    "packed",
    "ping",
    "read_deliveries",
    "read_entries",
    "read_pending",
    "xack",
    "xadd",
    "xadd_options",
    "xclaim",
    "xgroup_create",
    "xpending",
    "xrange",
    "xrange_after",
    "xreadgroup",
]

Argument: TypeAlias = str | bytes | int
Command: TypeAlias = tuple[Argument, ...]
EntryId: TypeAlias = tuple[int, int]
"""Ids compare as numbers, not as text."""

_ID = re.compile(r"[0-9]+-[0-9]+")
_IDS = re.compile(r"[0-9]+-[0-9]+(?:,[0-9]+-[0-9]+)*")


@attrs.frozen
class Pending:
    """A message that was delivered and not acknowledged."""

    id: str
    count: int
    """How many times it was delivered."""


def _pack_command(command: Command) -> bytes:
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


try:
    import hiredis
except ImportError:
    # There are platforms without it; redis-py goes without it too.
    _pack: Callable[[Any], bytes] = _pack_command
else:
    _pack = hiredis.pack_command


def packed(commands: Iterable[Command]) -> bytes:
    """Return commands as they are sent."""
    return b"".join(map(_pack, commands))


def ping() -> Command:
    """Ask for a sign of life; answered with ``PONG``."""
    return ("PING",)


def expire(key: str, seconds: int) -> Command:
    """Set a key's time to live; answered with 1, or 0 if there is no such key."""
    return ("EXPIRE", key, seconds)


def xgroup_create(stream: str, group: str, start_id: str) -> Command:
    """Make a group, and the stream if it is missing; answered with OK or ``BUSYGROUP``."""
    return ("XGROUP", "CREATE", stream, group, start_id, "MKSTREAM")


def xadd(stream: str, fields: Sequence[bytes], options: Sequence[Argument] = ()) -> Command:
    """Append an entry; answered with its id, or None if NOMKSTREAM forbids to make the stream."""
    return ("XADD", stream, *options, "*", *fields)


def xadd_options(max_len: int | None, *, exact: bool, create: bool) -> tuple[Argument, ...]:
    """Return options for `xadd`; without ``create`` it makes no stream that is not there."""
    options: tuple[Argument, ...] = () if create else ("NOMKSTREAM",)
    if max_len is not None:
        options += ("MAXLEN", "=" if exact else "~", max_len)
    return options


def xack(stream: str, group: str, ids: Iterable[str]) -> Command:
    """Acknowledge; answered with how many were pending."""
    return ("XACK", stream, group, *ids)


def xreadgroup(
    stream: str, group: str, consumer: str, *, count: int, block_ms: int | None, start: str = ">"
) -> Command:
    """Read new entries (``>``) or, from an id on, the consumer's own pending ones.

    ``block_ms`` None returns at once; at least 1 otherwise, since 0 would wait for ever.
    """
    block = () if block_ms is None else ("BLOCK", max(1, block_ms))
    return (
        *("XREADGROUP", "GROUP", group, consumer, "COUNT", count),
        *(*block, "STREAMS", stream, start),
    )


def xpending(
    stream: str,
    group: str,
    *,
    after: EntryId | None = None,
    count: int,
    consumer: str | None = None,
    min_idle_ms: int | None = None,
) -> Command:
    """List pending messages by id, of one consumer or of all."""
    idle = () if min_idle_ms is None else ("IDLE", min_idle_ms)
    start = "-" if after is None else f"({after[0]}-{after[1]}"
    of = () if consumer is None else (consumer,)
    return ("XPENDING", stream, group, *idle, start, "+", count, *of)


def xrange(stream: str, message_id: str) -> Command:
    """Read one entry; answered with a list of it, empty if it was deleted."""
    return ("XRANGE", stream, message_id, message_id)


def xrange_after(stream: str, after: EntryId | None, count: int) -> Command:
    """Read entries from the start, or after an id, without delivering them."""
    start = "-" if after is None else f"({after[0]}-{after[1]}"
    return ("XRANGE", stream, start, "+", "COUNT", count)


def xclaim(
    stream: str, group: str, consumer: str, *, min_idle_ms: int, ids: Iterable[str]
) -> Command:
    """Take over those of the ids that are idle for long enough; answered with their entries."""
    return ("XCLAIM", stream, group, consumer, min_idle_ms, *ids)


def entry_id(text: str) -> EntryId:
    """Return an entry's id as numbers."""
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence)


def is_entry_id(text: str) -> bool:
    """Whether a text is the id of an entry."""
    return _ID.fullmatch(text) is not None


def message_ids(ids: Any, argument: str = "message_id") -> list[str]:
    """Return one id or several as a list.

    Raises:
        ConfigurationError: Something in it is no id.
    """
    several = isinstance(ids, Iterable) and not isinstance(ids, str | bytes)
    found: list[Any] = list(ids) if several else [ids]
    try:
        together = ",".join(found)
    except TypeError:
        together = ""
    if together.count(",") == len(found) - 1 and _IDS.fullmatch(together):
        return found
    for one in found:
        if not isinstance(one, str) or not is_entry_id(one):
            raise ConfigurationError(f"{argument} must be like '1700000000000-0'; got {shown(one)}")
    return found


def read_entries(reply: Any) -> list[tuple[str, list[bytes] | None]]:
    """Return the ids and fields of a list of entries; the fields of a deleted one are None.

    What XCLAIM of 6.2 returns for a deleted entry, a nil without an id, is left out.
    """
    return [(entry[0].decode(), entry[1]) for entry in reply or () if entry is not None]


def delivered(reply: Any) -> Sequence[Any]:
    """Return the entries in a reply to XREADGROUP of one stream, in RESP2's shape or RESP3's."""
    if not reply:
        return ()
    entries: Sequence[Any]
    [entries] = reply.values() if isinstance(reply, Mapping) else [reply[0][1]]
    return entries or ()


def read_deliveries(reply: Any) -> list[tuple[str, list[bytes] | None]]:
    """Return the ids and fields in a reply to XREADGROUP of one stream, as `read_entries`."""
    return read_entries(delivered(reply))


def read_pending(reply: Any) -> list[Pending]:
    """Return what XPENDING lists, by id."""
    return [Pending(row[0].decode(), row[3]) for row in reply]


def new_deliveries(reply: Any) -> list[Held]:
    """Return the entries that a read of new ones delivered: each for the first time."""
    return [Held(id_.decode(), fields or [], 1) for id_, fields in delivered(reply)]
