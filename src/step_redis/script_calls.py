"""Calls of the scripts built, and their replies read; no I/O."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import attrs

from step_redis.commands import Argument, Command, entry_id
from step_redis.keys import GroupKeys
from step_redis.messages import Delivery
from step_redis.scripts import Script, script

__all__ = [
    "Polled",
    "ScriptCall",
    "ack",
    "copy",
    "ensure",
    "join",
    "leave",
    "park",
    "poll",
    "read_messages",
    "read_polled",
    "redrive",
    "rising",
]

SWEEP_MS = 1000
"""How often a group is looked through for dead consumers, by whichever of its consumers."""

SWEEP_BUDGET = 1000
"""How many messages of dead consumers one look parks: a few milliseconds of the server's time."""

ParkKind = Literal["failed", "lost", "interrupted", "unstarted"]


@attrs.define(eq=False)  # frozen, it would take three times as long to make
class ScriptCall:
    """A script with its keys and arguments."""

    script: Script
    keys: tuple[str, ...]
    args: tuple[Argument, ...] = attrs.field(repr=False)

    def by_sha(self) -> Command:
        """Return the command for a server that has the script; others answer ``NOSCRIPT``."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def by_text(self) -> Command:
        """Return the command that brings the script along."""
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.args)


@attrs.frozen
class Polled:
    """What a poll brought."""

    next_due_ms: int
    """Until the next parked message is due; -1 if none is parked."""
    parked: int
    """How many messages were put aside that dead consumers had left."""
    removed: int
    """How many dead consumers were removed."""
    lowest: str
    """The lowest id that was pending with the caller before, or ""."""
    delayed_due: int
    """How many delayed messages are due, which are to be published; -1 if that cannot be told."""
    deliveries: list[Delivery]


def _call(name: str, keys: Iterable[str], *args: Argument) -> ScriptCall:
    return ScriptCall(script(name), tuple(keys), args)


def join(
    keys: GroupKeys, group: str, name: str, lease_ms: int, old_names: Sequence[str]
) -> ScriptCall:
    """Take a lease under a fresh name, moving to it what older names hold."""
    return _call("join", keys.group, group, name, lease_ms, *old_names)


def poll(
    keys: GroupKeys,
    group: str,
    name: str,
    lease_ms: int,
    *,
    count: int,
    foreign_ms: int = -1,
    redrives: bool = False,
) -> ScriptCall:
    """Renew the lease, take due messages, look for dead consumers now and then."""
    beside = () if redrives else (keys.checkpoint, keys.delayed)
    sweep = (SWEEP_MS, SWEEP_BUDGET, foreign_ms)
    return _call("poll", (*keys.group, *beside), group, name, lease_ms, count, *sweep)


def ack(keys: GroupKeys, group: str, name: str, ids: Iterable[str], *, delete: bool) -> ScriptCall:
    """Acknowledge messages; it takes least if their ids are in rising order."""
    return _call("ack", keys.group, group, name, int(delete), *ids)


def park(
    keys: GroupKeys, group: str, name: str, ids: Iterable[str], *, delay_ms: int, kind: ParkKind
) -> ScriptCall:
    """Put messages aside until they are due."""
    return _call("park", keys.group, group, name, delay_ms, kind, *rising(ids))


def copy(
    keys: GroupKeys,
    group: str,
    name: str,
    message_id: str,
    *,
    target: str,
    fields: Sequence[bytes],
    delivery_fields: tuple[str, str] = ("", ""),
    delete: bool,
) -> ScriptCall:
    """Write an entry to another stream and acknowledge a message, as one.

    ``delivery_fields`` are names of fields to add for when it was first and last delivered.
    """
    about = (message_id, *delivery_fields)
    return _call("copy", (*keys.group, target), group, name, int(delete), *about, *fields)


def leave(keys: GroupKeys, group: str, name: str, started: Iterable[str]) -> ScriptCall:
    """Hand back everything and leave the group."""
    return _call("leave", keys.group, group, name, *started)


def ensure(keys: GroupKeys, group: str, policy: str) -> ScriptCall:
    """Make the group if it is not there."""
    return _call("ensure", (keys.stream, keys.checkpoint), group, policy)


def redrive(keys: GroupKeys, group: str, ids: Iterable[str], limit: int = -1) -> ScriptCall:
    """Deliver dead letters again, so many at most; keys and group of the dead-letter stream."""
    return _call("redrive", keys.group, group, "", limit, *rising(ids))


def read_messages(rows: Iterable[Any]) -> list[Delivery]:
    """Return the messages of a script's reply, by id."""
    deliveries = [
        Delivery(id_.decode(), fields, count, lost, interrupted)
        for id_, count, lost, interrupted, fields in rows
    ]
    return sorted(deliveries, key=lambda delivery: entry_id(delivery.id))


def read_polled(reply: Sequence[Any]) -> Polled:
    """Return what a poll that succeeded replied."""
    _, next_due_ms, parked, removed, lowest, delayed_due, *rows = reply
    return Polled(next_due_ms, parked, removed, lowest.decode(), delayed_due, read_messages(rows))


def rising(ids: Iterable[str]) -> list[str]:
    """Return ids in the order of the stream."""
    return sorted(ids, key=entry_id)
