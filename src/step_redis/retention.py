"""What a stream may drop: limits, and what trimming to them came to; no I/O."""

from collections.abc import Sequence
from typing import Any

import attrs

from step_redis.arguments import check_number, check_whole
from step_redis.errors import ConfigurationError
from step_redis.keys import REDRIVE_PREFIX, GroupKeys, dead_letter_stream, redrive_group
from step_redis.script_calls import ScriptCall
from step_redis.scripts import script

__all__ = ["HeldBack", "Page", "Retention", "Trimmed", "forget_group", "read_page", "trim"]

PAGE_ENTRIES = 1000
"""How many entries one call looks at: a few milliseconds of the server's time."""


@attrs.frozen(kw_only=True)
class Retention:
    """What a stream keeps, beside everything that some group has not acknowledged.

    An entry goes when it exceeds one of the limits and every group of the stream has acknowledged
    it. Without groups, the limits alone decide.

    Args:
        max_len: How many of the latest entries are kept; None for no such limit, 0 keeps none.
        max_age_seconds: How long ago entries were published that are kept; None for no such limit.
    """

    max_len: int | None = None
    max_age_seconds: float | None = None

    def __attrs_post_init__(self) -> None:
        check_whole("max_len", self.max_len, 0, none="for no such limit")
        check_number("max_age_seconds", self.max_age_seconds, 0, none="for no such limit")
        if self.max_len is None and self.max_age_seconds is None:
            raise ConfigurationError(
                "a Retention has at least one limit: max_len, max_age_seconds, or both"
            )


@attrs.frozen
class HeldBack:
    """The first entry beyond the limits that a group has not acknowledged.

    Attributes:
        group: The group.
        consumer: Which of its consumers has it; ``_step:parked`` while it waits to be delivered
            again. None: the group has not received it.
        message_id: The id of the entry.
        age_seconds: How long ago it was published.
    """

    group: str
    consumer: str | None
    message_id: str
    age_seconds: float


@attrs.frozen(kw_only=True)
class Trimmed:
    """What trimming came to.

    Attributes:
        removed: How many entries were removed.
        held_back: Who holds back what is beyond the limits: for a group the first entry that it
            has not acknowledged. Where a group has not received an entry the search ends, since
            nothing behind can be removed; groups that hold back only what lies there are not named
            before that one has moved on, or was removed by `StepRedisStream.forget_group`.
    """

    removed: int
    held_back: list[HeldBack]


@attrs.frozen
class Page:
    """What one call came to."""

    removed: int
    kept: int
    """How many entries beyond the limits were kept."""
    next_start: str
    """Where the next page begins; "" if there is none."""
    held_back: list[HeldBack]


def trim(stream: str, retention: Retention, start: str, kept: int) -> ScriptCall:
    """Remove what may go from a page of entries; ``kept`` were kept in the pages before."""
    age = retention.max_age_seconds
    limits = (
        "" if retention.max_len is None else retention.max_len,
        "" if age is None else int(age * 1000),
    )
    args = (*limits, start, kept, PAGE_ENTRIES, REDRIVE_PREFIX)
    return ScriptCall(script("trim"), (stream,), args)


def read_page(reply: Sequence[Any]) -> Page:
    """Return what the script replied."""
    _, removed, kept, next_start, *rows = reply
    held_back = [
        HeldBack(
            group.decode(errors="backslashreplace"),
            consumer.decode(errors="backslashreplace") or None,
            id_.decode(),
            max(0, age_ms) / 1000,
        )
        for group, consumer, id_, age_ms in rows
    ]
    return Page(removed, kept, next_start.decode(), held_back)


def forget_group(stream: str, group: str, dead: str | None) -> ScriptCall:
    """Remove a group and what is kept for it, unless consumers of ours are at work in it."""
    dead = dead or dead_letter_stream(stream)
    redriven = redrive_group(stream, group)
    own, again = GroupKeys.of(stream, group), GroupKeys.of(dead, redriven)
    keys = (*own.group, own.checkpoint, *again.group)
    return ScriptCall(script("forget"), keys, (group, redriven))
