"""What the server says in the end, and when it has become quiet."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from step_redis.keys import GroupKeys, dead_letter_stream, redrive_group
from torture.settings import GROUP, RECORDER, STREAMS, forward_stream

PARKED = "_step:parked"

Fields = dict[bytes, bytes]


@attrs.frozen
class StreamTruth:
    """A stream and what came of its entries."""

    stream: str
    entries: Mapping[str, Fields]
    """All that it ever had."""
    dead: dict[str, list[Fields]]
    """Dead letters, by the id that they say they had."""
    forwarded: dict[str, list[Fields]]


@attrs.frozen
class Unfinished:
    """What is not finished in a group."""

    stream: str
    group: str
    delayed: int
    pending: int
    due: int
    attempts: int
    unread: int
    consumers: tuple[str, ...]

    @property
    def is_quiet(self) -> bool:
        """Whether every message is there and settled."""
        return not (self.delayed or self.pending or self.due or self.attempts or self.unread)


def _groups(client: Any) -> list[tuple[str, str, Any]]:
    """Return each stream and group, and what the server says of it; also those for redriving."""
    found = []
    for stream in STREAMS:
        dead, redriving = dead_letter_stream(stream), redrive_group(stream, GROUP)
        for name, group in ((stream, GROUP), (stream, RECORDER), (dead, redriving)):
            infos = client.xinfo_groups(name) if client.exists(name) else []
            found += [(name, group, info) for info in infos if info["name"] == group.encode()]
    return found


def unfinished(client: Any) -> list[Unfinished]:
    """Ask what is not finished, for each group."""
    return [_unfinished(client, *group) for group in _groups(client)]


def _unfinished(client: Any, stream: str, group: str, info: Any) -> Unfinished:
    keys, last = GroupKeys.of(stream, group), info["last-delivered-id"].decode()
    # Dead letters are not read, only redriven.
    unread = len(client.xrange(stream, f"({last}", count=1000)) if stream in STREAMS else 0
    return Unfinished(
        stream,
        group,
        delayed=client.zcard(keys.delayed),
        pending=client.xpending(stream, group)["pending"],
        due=client.zcard(keys.due),
        attempts=client.hlen(keys.attempts),
        unread=unread,
        consumers=tuple(
            sorted(one["name"].decode() for one in client.xinfo_consumers(stream, group))
        ),
    )


def pending_rows(client: Any) -> list[str]:
    """Describe some of what is pending."""
    return [
        f"{stream} {group} {row['message_id'].decode()}: with {row['consumer'].decode()} for"
        f" {row['time_since_delivered'] / 1000:.1f} s, delivery {row['times_delivered']}"
        for stream, group, _ in _groups(client)
        for row in client.xpending_range(stream, group, "-", "+", 20)
    ]


def stream_truth(client: Any, stream: str, entries: Mapping[str, Fields]) -> StreamTruth:
    """Read a stream's dead letters and what was forwarded from it; all its entries are known."""
    return StreamTruth(
        stream,
        entries,
        _by_origin(client, dead_letter_stream(stream), _dead_id),
        _by_origin(client, forward_stream(stream), lambda fields: fields[b"id"]),
    )


def _dead_id(fields: Fields) -> bytes:
    return fields[b"_step:h:_step:dead:id"]


def _by_origin(
    client: Any, stream: str, origin: Callable[[Fields], bytes]
) -> dict[str, list[Fields]]:
    found = defaultdict(list)
    for _, fields in client.xrange(stream):
        found[origin(fields).decode()].append(fields)
    return found
