"""Kinds of messages, and what handlers do with them: succeed, fail, hang, outlive their lease."""

import asyncio
import time
from collections.abc import Callable, Generator
from functools import partial
from random import Random
from typing import Any

from torture.journal import Journal
from torture.settings import LEASE_SECONDS, forward_stream

# How often each kind is published. There are "broken" ones too, which cannot be decoded.
WEIGHTS = {
    "plain": 600,
    "acks": 80,
    "slow": 140,
    "flaky": 50,
    "poison": 15,
    "fatal": 10,
    "reject": 15,
    "nack": 30,
    "gives-up": 10,
    "forward": 60,
    "outlives": 3,
    "hangs": 2,
    "stubborn": 1,
    "blocks": 1,
}

Steps = Generator[Any, Any, None]
"""Seconds to sleep, or functions of the library to call."""


class FlakyError(Exception):
    """A failure that the next delivery may not have."""


class FatalError(Exception):
    """A failure that no retry mends."""


def choose(rng: Random) -> str:
    """Choose a kind."""
    [kind] = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
    return kind


def handle(message: Any, journal: Journal, *, acks_first: bool = False) -> Steps:
    """Handle a message; "done" is noted before any settlement that says so is sent."""
    kind, case = message.data["kind"], message._case
    count = case.held.count
    # A redriven message says where it first was.
    origin = message.stream, message.id
    about = {"m": case.membership.stream, "id": case.held.id, "n": count, "o": origin}
    journal.write("start", **about, at=case.held.started_at, kind=kind)
    if acks_first:
        yield message.ack
    try:
        yield from _HANDLERS[kind](message, partial(journal.write, "done", **about))
    except Exception as error:
        journal.write("fail", **about, why=type(error).__name__)
        raise


def _plain(_: Any, done: Any) -> Steps:
    yield 0.002
    done()


def _acks(message: Any, done: Any) -> Steps:
    yield 0.002
    done()
    yield message.ack


def _slow(_: Any, done: Any) -> Steps:
    yield 0.2
    done()


def _flaky(message: Any, done: Any) -> Steps:
    yield 0.01
    if message.delivery_count <= message.data["fails"]:
        raise FlakyError("next time it goes well")
    done()


def _poison(_message: Any, _done: Any) -> Steps:
    yield 0.01
    raise FlakyError("it never goes well")


def _fatal(_message: Any, _done: Any) -> Steps:
    yield 0.01
    raise FatalError("there is no point in trying again")


def _reject(message: Any, _done: Any) -> Steps:
    yield partial(message.reject, "nobody wants it")


def _nack(message: Any, done: Any) -> Steps:
    if message.delivery_count == 1:
        yield partial(message.nack, 0.3)
    else:
        done()


def _gives_up(message: Any, _done: Any) -> Steps:
    yield message.nack


def _forward(message: Any, done: Any) -> Steps:
    yield 0.01
    done()
    origin = {"stream": message.stream, "id": message.id}
    yield partial(message.forward, forward_stream(message.stream), origin)


def _outlives(message: Any, done: Any) -> Steps:
    """Take three leases, and say so."""
    for _ in range(12):
        yield LEASE_SECONDS / 4
        yield message.extend
    done()


def _hangs(_: Any, done: Any) -> Steps:
    yield 2 * LEASE_SECONDS
    done()


def _stubborn(_: Any, done: Any) -> Steps:
    """Hang, and refuse to end."""
    yield from _stay(2 * LEASE_SECONDS)
    done()


def _blocks(_: Any, done: Any) -> Steps:
    """Keep everything else in the process from running, in asyncio."""
    yield 0.01
    time.sleep(1.5 * LEASE_SECONDS)
    done()


def _stay(seconds: float) -> Steps:
    """Sleep, whoever wants it to end."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            yield left
        except asyncio.CancelledError:
            continue


_HANDLERS: dict[str, Callable[[Any, Any], Steps]] = {
    "plain": _plain,
    "acks": _acks,
    "slow": _slow,
    "flaky": _flaky,
    "poison": _poison,
    "fatal": _fatal,
    "reject": _reject,
    "nack": _nack,
    "gives-up": _gives_up,
    "forward": _forward,
    "outlives": _outlives,
    "hangs": _hangs,
    "stubborn": _stubborn,
    "blocks": _blocks,
}


async def follow(steps: Steps) -> None:
    """Carry out the steps of a handler in asyncio."""
    send: Any = partial(steps.send, None)
    while True:
        try:
            step = send()
        except StopIteration:
            return
        try:
            result = await (asyncio.sleep(step) if isinstance(step, float) else step())
        except BaseException as error:  # noqa: BLE001 - the handler's, also if it is cancelled
            send = partial(steps.throw, error)
        else:
            send = partial(steps.send, result)


def follow_blocking(steps: Steps) -> None:
    """Carry out the steps of a handler in this thread."""
    send: Any = partial(steps.send, None)
    while True:
        try:
            step = send()
        except StopIteration:
            return
        try:
            result = time.sleep(step) if isinstance(step, float) else step()
        except BaseException as error:  # noqa: BLE001 - the handler's
            send = partial(steps.throw, error)
        else:
            send = partial(steps.send, result)
