"""Bugs to plant in a consumer process, which the torture test has to find."""

from collections.abc import Callable
from functools import cache

from step_redis import scripts

_SWEEP = "if not alive(name) then"
_SETTLE = "settle({id}, ARGV[3] == '1')"
_RENEW = "lease(caller, tonumber(ARGV[3]))\nlocal SWEEP"
_FENCE = "if is_new or not alive(caller) then return {'LOST'} end"

PLANTS: dict[str, tuple[str, str, str] | None] = {
    # Each: which script, which part of its text, what takes its place.
    "fence": ("fence.lua", _FENCE, ""),
    "renewal": ("poll.lua", _RENEW, "local SWEEP"),
    "early-takeover": ("poll.lua", _SWEEP, "if name ~= caller then"),
    "dead-without-ack": ("copy.lua", _SETTLE, ""),
    # The handler acknowledges before it begins.
    "early-ack": None,
}

PROVOKING = {"fence": 3 * ["server-freeze-long"]}
"""Faults that show a bug that others seldom do."""


def plant(name: str) -> None:
    """Make this process's scripts have the bug."""
    change = PLANTS[name]
    if change is not None:
        scripts._read = _changed(scripts._read, *change)
        scripts.script.cache_clear()


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
