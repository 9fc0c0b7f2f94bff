"""What a producer calls, and when: chosen at random, noted before and after."""

import itertools
import time
from collections import deque
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

import attrs

from step_redis import PartlyPublishedError, StepRedisError
from torture import behaviour
from torture.journal import Journal
from torture.settings import STREAMS

_BURST = 30
_SECONDS_EACH = 1 / 40
"""Between two messages of a producer, on average."""

_MOST_UNDER_WAY = 40

# How messages are published, of so many bursts.
_WAYS = {"single": 9, "batch": 6, "many": 4, "later": 6}

_LATER_AT_ONCE = 10
_DELAYS = (0.05, 2.5)
_CANCELLED = 0.5
"""How many of the delayed messages are to be cancelled."""

_CANCELLED_AT = (-0.6, 0.3)
"""Seconds from when they are due: then whoever moves them comes, within half a second."""

_CANCELLED_AGAIN = 0.2

_SPOILT = 0.2
"""How many batches have a message that cannot be published."""

_BROKEN = 0.005
"""How many single messages are entries that cannot be decoded."""

_HASTY = 0.3
"""How many calls are soon done with repeating."""

_KEYS_A_SECOND = 4
_AGAIN = 0.4
"""How often an earlier key is published again, for each key."""

_KEYS_BACK = 40
_KEYS_BACK_AT_START = 10
"""An incarnation that was killed may not have come to know what became of these."""


@attrs.frozen(eq=False)
class Call:
    """A call of the library."""

    number: int
    way: str
    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    is_hasty: bool
    messages: dict[str, list[str]]
    """For each stream the numbers of the messages."""
    key: int | None = None


class Chooser:
    """Chooses what one producer does. Its calls may be carried out at once, by several threads.

    Args:
        name: What the numbers of its messages begin with.
        seed: From which the messages with keys follow, for all producers alike.
        epoch: When the first key was published, in seconds since 1970. Keys follow from the time,
            so that all producers publish the same ones at about the same time.
        journal: Where it is noted.
    """

    def __init__(self, name: str, seed: str, epoch: float, journal: Journal) -> None:
        self._name, self._seed, self._epoch, self._journal = name, seed, epoch, journal
        self._rng = Random(f"{seed} {name}")
        self._calls, self._messages = itertools.count(1), itertools.count(1)
        self._next_at = time.time()
        self._next_key = max(0, self._current_key() - _KEYS_BACK_AT_START)
        self._wanted: deque[tuple[float, str | int]] = deque()
        """What is to be done then: a handle to be cancelled, a key to be published again."""

    def calls(self, under_way: int) -> list[Call]:
        """Return what to call now, while so many calls are under way."""
        if under_way >= _MOST_UNDER_WAY:
            return []
        now = time.time()
        chosen = [*self._wanted_now(now), *map(self._keyed, self._new_keys())]
        if now >= self._next_at:
            size = self._rng.randint(1, _BURST)
            self._next_at = now + self._rng.uniform(0, 2 * size * _SECONDS_EACH)
            chosen += self._burst(size)
        return chosen

    def begins(self, call: Call) -> None:
        """Note that a call begins."""
        if call.way == "cancel":
            self._journal.write("cancel", c=call.number, handle=call.arguments[0])
            return
        self._journal.write(
            "publish",
            c=call.number,
            way=call.way,
            messages=call.messages,
            key=call.key,
            delay=call.options.get("delay_seconds"),
            wall=time.time(),
        )

    def returned(self, call: Call, result: Any) -> None:
        """Note what a call returned."""
        if call.way == "cancel":
            self._journal.write("cancelled", c=call.number, result=result)
            if self._rng.random() < _CANCELLED_AGAIN:
                self._want(0.1, call.arguments[0])
            return
        result = result if isinstance(result, str | dict) else {call.arguments[0]: result}
        self._journal.write("published", c=call.number, result=result)
        if call.way == "later" and self._rng.random() < _CANCELLED:
            due = int(result.partition(":")[0]) / 1000
            self._want(due - time.time() + self._rng.uniform(*_CANCELLED_AT), result)

    def raised(self, call: Call, error: Exception) -> None:
        """Note what a call raised; a key is published until it is known what came of it."""
        about: dict[str, Any] = {"why": type(error).__name__, "unknown": None}
        if isinstance(error, StepRedisError):
            about["unknown"] = error.outcome_unknown
        if isinstance(error, PartlyPublishedError):
            about |= {"written": error.written, "perhaps": error.unknown}
        self._journal.write("raised", c=call.number, text=str(error), **about)
        if call.key is not None:
            self._want(0.2, call.key)
        elif call.way == "cancel":
            self._want(0.2, call.arguments[0])

    def _want(self, seconds: float, what: str | int) -> None:
        self._wanted.append((time.time() + seconds, what))

    def _wanted_now(self, now: float) -> Iterable[Call]:
        # Others append meanwhile.
        for _ in range(len(self._wanted)):
            at, what = self._wanted.popleft()
            if at > now:
                self._wanted.append((at, what))
            elif isinstance(what, int):
                yield self._keyed(what)
            else:
                yield self._call("cancel", "cancel_delayed", what)

    def _current_key(self) -> int:
        return int((time.time() - self._epoch) * _KEYS_A_SECOND)

    def _new_keys(self) -> list[int]:
        current = self._current_key()
        keys = list(range(self._next_key, current))
        self._next_key = max(self._next_key, current)
        back = [self._rng.randint(1, _KEYS_BACK) for _ in keys if self._rng.random() < _AGAIN]
        return keys + [current - one for one in back if current > one]

    def _keyed(self, key: int) -> Call:
        # Whoever publishes it has to publish the same.
        rng = Random(f"{self._seed} {key}")
        stream, message = rng.choice(STREAMS), self._message(rng, f"key-{key}")
        options = {"dedup_id": f"order-{key}"}
        if rng.random() < 0.25:
            options["delay_seconds"] = rng.uniform(*_DELAYS)
        return self._publish("keyed", stream, message, key=key, **options)

    def _burst(self, size: int) -> list[Call]:
        [way] = self._rng.choices(list(_WAYS), list(_WAYS.values()))
        match way:
            case "single":
                return [self._single() for _ in range(size)]
            case "later":
                size = min(size, _LATER_AT_ONCE)
                return [self._later() for _ in range(size)]
            case "batch":
                stream = self._rng.choice(STREAMS)
                [(_, messages)] = self._several({stream: size}).items()
                numbers = {stream: _numbers(messages)}
                return [self._call("batch", "publish_messages", stream, messages, numbers=numbers)]
            case _:
                first = self._rng.randint(0, size)
                several = self._several(dict(zip(STREAMS, (first, size - first), strict=True)))
                numbers = {stream: _numbers(messages) for stream, messages in several.items()}
                return [self._call("many", "publish_many", several, numbers=numbers)]

    def _single(self) -> Call:
        stream, message = self._rng.choice(STREAMS), self._message(self._rng)
        if self._rng.random() < _BROKEN:
            # It says of itself what is not so, as an entry of another program might.
            fields = {"number": message["number"], "kind": "broken", "_step:t": '{"no":"j"}'}
            numbers = {stream: [message["number"]]}
            return self._call("raw", "xadd", stream, fields, numbers=numbers)
        return self._publish("single", stream, message)

    def _later(self) -> Call:
        stream, message = self._rng.choice(STREAMS), self._message(self._rng)
        delay = self._rng.uniform(*_DELAYS)
        return self._publish("later", stream, message, delay_seconds=delay)

    def _publish(self, way: str, stream: str, message: dict[str, Any], **rest: Any) -> Call:
        numbers = {stream: [message["number"]]}
        return self._call(way, "publish_message", stream, message, numbers=numbers, **rest)

    def _call(
        self,
        way: str,
        method: str,
        *arguments: Any,
        numbers: Mapping[str, list[str]] | None = None,
        key: int | None = None,
        **options: Any,
    ) -> Call:
        is_hasty = self._rng.random() < _HASTY
        number, messages = next(self._calls), dict(numbers or {})
        return Call(number, way, method, arguments, options, is_hasty, messages, key)

    def _several(self, sizes: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
        several = {
            stream: [self._message(self._rng) for _ in range(size)]
            for stream, size in sizes.items()
        }
        everything = [message for messages in several.values() for message in messages]
        if self._rng.random() < _SPOILT:
            self._rng.choice(everything)["spoilt"] = object()
        return several

    def _message(self, rng: Random, number: str = "") -> dict[str, Any]:
        number = number or f"{self._name}-{next(self._messages)}"
        kind = behaviour.choose(rng)
        message = {"number": number, "kind": kind, "fails": rng.randint(1, 2)}
        message["text"] = "x" * rng.choice([10, 100, 1000])
        return message


def _numbers(messages: Iterable[Mapping[str, Any]]) -> list[str]:
    return [message["number"] for message in messages]
