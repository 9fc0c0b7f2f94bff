"""Publishing by scripts: operations built, their results read; no I/O."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

import attrs
from redis.exceptions import ResponseError

from step_redis.arguments import check_number, shown
from step_redis.codec import Codec
from step_redis.commands import Argument
from step_redis.dedup import dedup_key, fingerprint
from step_redis.errors import ConfigurationError, DuplicateConflict, EncodeError
from step_redis.keys import delayed_key
from step_redis.ledger import Operation
from step_redis.script_calls import ScriptCall
from step_redis.scripts import MOST_VALUES, script

__all__ = [
    "CHUNK_BYTES",
    "CHUNK_MESSAGES",
    "Chunk",
    "DelayedMessage",
    "DelayedMessages",
    "Handle",
    "batch",
    "cancel",
    "check_messages",
    "check_size",
    "due",
    "list_delayed",
    "once",
    "publish_due",
    "read_cancelled",
    "read_delayed",
    "read_ids",
    "read_once",
    "written_effect",
]

CHUNK_MESSAGES = 500
"""How many messages one script call takes: about a millisecond of the server's time."""

CHUNK_BYTES = 1024 * 1024
"""How many bytes, but for the last message of a call."""

_ONE_WRITTEN = "the entry may have been written"

DUE_LIMIT = 100
"""How many delayed messages one call moves."""

_EPOCH = datetime.fromtimestamp(0, UTC)

_HANDLE = re.compile(r"(\d+):(\d{16}-[0-9a-f]{16}\.\d{12}):([^:]+)(?::([^:]+))?", re.ASCII)


@attrs.frozen
class Handle:
    """What names a delayed message, as a text that users may keep anywhere."""

    due_ms: str
    member: str
    stream: str
    dedup_id: str | None

    def __str__(self) -> str:
        parts = [self.due_ms, self.member, quote(self.stream, safe="")]
        if self.dedup_id is not None:
            parts.append(quote(self.dedup_id, safe=""))
        return ":".join(parts)

    @classmethod
    def parse(cls, text: Any) -> "Handle":
        """Return what a text names.

        Raises:
            ConfigurationError: It is no handle.
        """
        found = _HANDLE.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ConfigurationError(
                "handle must be what publish_message returned for a delayed message; got"
                f" {shown(text)}"
            )
        due_ms, member, stream, dedup_id = found.groups()
        return cls(due_ms, member, unquote(stream), dedup_id and unquote(dedup_id))


@attrs.frozen(kw_only=True)
class DelayedMessage:
    """A message that is not in its stream yet.

    Attributes:
        handle: What `StepRedisStream.cancel_delayed` takes.
        deliver_at: When it is due, by the server's clock, in UTC.
        data: The message that was published.
        headers: The headers it was published with.
    """

    handle: str
    deliver_at: datetime
    data: dict[Any, Any] = attrs.field(repr=False)
    headers: dict[str, str] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class DelayedMessages:
    """The messages that are not in a stream yet.

    Attributes:
        count: How many there are.
        messages: The first of them, in the order in which they are due.
    """

    count: int
    messages: list[DelayedMessage]


@attrs.define
class Chunk:
    """Messages of one stream that are published by one call."""

    stream: str
    messages: list[list[bytes]] = attrs.field(factory=list, repr=False)
    size: int = 0
    """How many bytes they have."""

    def add(self, fields: list[bytes]) -> None:
        """Add a message that was encoded."""
        self.messages.append(fields)
        self.size += sum(map(len, fields))

    @property
    def is_full(self) -> bool:
        """Whether it is worth a call."""
        return len(self.messages) >= CHUNK_MESSAGES or self.size >= CHUNK_BYTES


def check_messages(messages: Any) -> None:
    """Refuse what are not several messages."""
    if isinstance(messages, Mapping):
        raise ConfigurationError(
            "messages must be several; got one dict: use publish_message, or put it in a list"
        )
    if isinstance(messages, str | bytes) or not isinstance(messages, Iterable):
        raise ConfigurationError(
            "messages must be an iterable of dicts, such as a list or a generator; got"
            f" {shown(messages)}"
        )


def check_size(fields: Sequence[bytes]) -> None:
    """Refuse a message that no script can write."""
    if len(fields) > MOST_VALUES:
        raise EncodeError(
            f"the message has {len(fields) // 2} fields, and a script can write"
            f" {MOST_VALUES // 2} at most: publish it with publish_message alone, now and without"
            " dedup_id, or put what belongs together into one field"
        )


def batch(messages: Sequence[Sequence[bytes]], options: Sequence[Argument]) -> Operation:
    """Return the operation that appends messages to a stream."""
    args: list[Argument] = [len(options), *options]
    for fields in messages:
        args.append(len(fields))
        args += fields
    return Operation("publish", tuple(args), effect=written_effect(len(messages)))


def written_effect(count: int) -> str:
    """Say what may have happened if the reply to publishing so many messages is lost."""
    return _ONE_WRITTEN if count == 1 else f"up to {count} entries may have been written"


def once(
    stream: str,
    fields: Sequence[bytes],
    options: Sequence[Argument],
    *,
    dedup_id: str | None,
    dedup_seconds: float,
    due: str,
    must_exist: bool,
) -> Operation:
    """Return the operation that publishes a message under a user's key, or later."""
    more_keys, digest = [delayed_key(stream)], b""
    if dedup_id is not None:
        more_keys.append(dedup_key(stream, dedup_id))
        digest = fingerprint(fields)
    what = (digest, int(dedup_seconds * 1000), due, int(must_exist), dedup_id or "")
    args = (*what, *options, "*", *fields)
    effect = "the message may be delayed" if due else "the entry may have been written"
    return Operation("publish_once", args, tuple(more_keys), effect=effect)


def cancel(handle: Handle) -> Operation:
    """Return the operation that takes a delayed message back."""
    more_keys = [delayed_key(handle.stream)]
    if handle.dedup_id is not None:
        more_keys.append(dedup_key(handle.stream, handle.dedup_id))
    effect = "the message may have been cancelled"
    return Operation("cancel", (handle.due_ms, handle.member), tuple(more_keys), effect=effect)


def due(delay_seconds: float | None, deliver_at: datetime | None) -> str:
    """Return when a message is due, as the script takes it: "" for now."""
    moment: Any = deliver_at
    if delay_seconds is not None:
        if deliver_at is not None:
            raise ConfigurationError("give delay_seconds or deliver_at, not both")
        check_number("delay_seconds", delay_seconds, 0)
        return f"+{int(delay_seconds * 1000)}"
    if deliver_at is None:
        return ""
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        got = "one without" if isinstance(moment, datetime) else shown(deliver_at)
        raise ConfigurationError(
            f"deliver_at must be a datetime with a time zone, as datetime.now(UTC) has; got {got}"
        )
    return str(max(0, (deliver_at - _EPOCH) // timedelta(milliseconds=1)))


def publish_due(stream: str) -> ScriptCall:
    """Move messages that are due into their stream."""
    return ScriptCall(script("publish_due"), (stream, delayed_key(stream)), (DUE_LIMIT,))


def list_delayed(stream: str, limit: int) -> ScriptCall:
    """Look at delayed messages."""
    return ScriptCall(script("delayed"), (delayed_key(stream),), (limit,))


def read_ids(result: bytes) -> tuple[list[str], ResponseError | None]:
    """Return the ids of a batch that was written, and what the server said if not all of it was."""
    runs, _, refusal = result.decode().partition(" ")
    if runs.endswith("*1") and "," not in runs:
        return [runs[:-2]], ResponseError(refusal) if refusal else None
    ids = [id_ for run in runs.split(",") for id_ in _ids_of_run(run)]
    return ids, ResponseError(refusal) if refusal else None


def _ids_of_run(run: str) -> Iterator[str]:
    first, _, count = run.partition("*")
    if count == "1":
        yield first
        return
    milliseconds, _, sequence = first.partition("-")
    start = int(sequence)
    for at in range(start, start + int(count)):
        yield f"{milliseconds}-{at}"


def read_once(result: bytes, stream: str, dedup_id: str | None) -> str:
    """Return the id of the entry, or the handle of the delayed message.

    Raises:
        DuplicateConflict: Another message was published under the user's key.
    """
    kind, _, written = result.decode().partition(" ")
    if ":" in written:
        due_ms, _, member = written.partition(":")
        written = str(Handle(due_ms, member, stream, dedup_id))
    if kind == "OTHER":
        conflict = DuplicateConflict(
            f"another message was published with dedup_id {dedup_id!r} already: it is {written}"
        )
        conflict.first_id = written
        raise conflict
    return written


def read_cancelled(result: bytes) -> bool:
    """Return whether a delayed message was taken back."""
    return result == b"1"


def read_delayed(reply: Sequence[Any], stream: str, codec: Codec) -> DelayedMessages:
    """Return the delayed messages that a script found."""
    _, count, *rows = reply
    messages = []
    for due_ms, member, (dedup_id, *arguments) in rows:
        decoded = codec.decode(arguments[arguments.index(b"*") + 1 :])
        handle = Handle(due_ms.decode(), member.decode(), stream, dedup_id.decode() or None)
        messages.append(
            DelayedMessage(
                handle=str(handle),
                deliver_at=_EPOCH + timedelta(milliseconds=int(due_ms)),
                data=decoded.data,
                headers=decoded.headers,
            )
        )
    return DelayedMessages(count=count, messages=messages)
