"""Bugs to plant in the processes of consumers and producers, which the torture test has to find."""

from collections.abc import Callable
from functools import cache
from typing import Any

from step_redis import scripts
from step_redis._async import batches as asyncio_batches
from step_redis._sync import batches as threads_batches
from step_redis.ledger import Numbered
from step_redis.script_calls import ScriptCall

_SWEEP = "if not alive(name) then"
_SETTLE = "settle({id}, ARGV[3] == '1')"
_RENEW = "lease(caller, tonumber(ARGV[3]))\nlocal SWEEP"
_FENCE = "if is_new or not alive(caller) then return {'LOST'} end"
_DUE_IN_STREAM = "redis.pcall('XADD', stream, unpack(cmsgpack.unpack(packed), 2))"
_DUE_REMOVED = "redis.call('ZREM', delayed, member)"
_DUE_NOW = "redis.pcall('ZRANGEBYSCORE', delayed, '-inf', now,"
_CANCELLED = "redis.call('ZREM', delayed, found)"
_IS_PENDING = "if owner[id] or "
_IS_LOWEST = "if group.lowest and is_above(id, group.lowest) then id = group.lowest end"
_LAST = "reads and about['last-delivered-id'] or MAX_ID"
_KNOWN = "redis.call('SET', record, written .. ' ' .. ARGV[3], 'PX', kept)"


def _number_anew() -> None:
    """What is asked again after a lost reply goes under another number."""
    call = Numbered.call

    def call_anew(self: Numbered) -> ScriptCall:
        if self.lost is not None:
            self._start_anew()
        return call(self)

    Numbered.call = call_anew


def _deny_doubt() -> None:
    """Whoever is told of a lost reply is told that nothing was done."""

    def deny(self: Numbered, name: str, value: Any) -> None:
        if name == "lost" and value is not None:
            value.outcome_unknown = False
        object.__setattr__(self, name, value)

    Numbered.__setattr__ = deny


def _deny_batches() -> None:
    """Messages of a batch whose reply was lost count as not written."""
    for batches in (asyncio_batches.Batches, threads_batches.Batches):
        batches._may_be_written = lambda *_: None


PLANTS: dict[str, tuple[str, str, str] | Callable[[], None]] = {
    # Which script, which part of its text, what takes its place; or what else to change.
    "fence": ("fence.lua", _FENCE, ""),
    "renewal": ("poll.lua", _RENEW, "local SWEEP"),
    "early-takeover": ("poll.lua", _SWEEP, "if name ~= caller then"),
    "dead-without-ack": ("copy.lua", _SETTLE, ""),
    # The handler acknowledges before it begins.
    "early-ack": lambda: None,
    "number-anew": _number_anew,
    "doubt-denied": _deny_doubt,
    "batch-denied": _deny_batches,
    "key-forgotten": ("publish_once.lua", _KNOWN, "redis.call('DEL', record)"),
    "due-lost": ("publish_due.lua", _DUE_IN_STREAM, "''"),
    "due-twice": ("publish_due.lua", _DUE_REMOVED, ""),
    "due-early": ("publish_due.lua", _DUE_NOW, _DUE_NOW.replace("now", "now + 500")),
    "cancelled-due": ("cancel.lua", _CANCELLED, ""),
    "trim-pending": ("trim.lua", _IS_PENDING, "if "),
    "trim-pending-in-bulk": ("trim.lua", _IS_LOWEST, ""),
    "trim-unread": ("trim.lua", _LAST, "MAX_ID"),
}

PROVOKING = {
    "fence": 3 * ["server-freeze-long"],
    "number-anew": 6 * ["proxy-drop-reply"],
    "batch-denied": 3 * ["server-freeze-long"],
}
"""Faults that show a bug that others seldom do."""


def plant(name: str) -> None:
    """Make this process have the bug."""
    change = PLANTS[name]
    if isinstance(change, tuple):
        scripts._read = _changed(scripts._read, *change)
        scripts.script.cache_clear()
    else:
        change()


def _changed(
    read: Callable[[str], str], changed: str, part: str, other: str
) -> Callable[[str], str]:
    @cache
    def read_changed(file: str) -> str:
        text = read(file)
        if file != changed:
            return text
        assert part in text, f"{file} has no {part!r}: the plant needs mending"
        return text.replace(part, other)

    return read_changed
