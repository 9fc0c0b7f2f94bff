"""What tests of consumers share: running one beside the test, looking at what the group holds."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
from redis import Redis
from redis.exceptions import ResponseError

PARKED = b"_step:parked"
PROGRAM = Path(__file__).parent / "consumer_program.py"
DEAD = "_step:dead:"


@attrs.define
class Recorder:
    """A handler that notes what it was called with, and then does what the test says."""

    then: Callable[[Any], Any] | None = None
    messages: list[Any] = attrs.field(factory=list)
    times: list[float] = attrs.field(factory=list)

    async def __call__(self, message: Any) -> None:
        await self.handle(message)

    async def handle(self, message: Any) -> None:
        self.messages.append(message)
        self.times.append(time.monotonic())
        if self.then is not None:
            await self.then(message)

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]

    @property
    def counts(self) -> list[int]:
        return [message.delivery_count for message in self.messages]


@contextlib.asynccontextmanager
async def running(consumer: Any, handler: Any, **options: Any) -> AsyncIterator[Any]:
    """Run a consumer beside the block; stop it at its end, and raise what made it fail."""
    async with consumer:
        task = asyncio.ensure_future(consumer.run(handler, **options))
        try:
            yield task
        finally:
            consumer.stop()
            # If the block failed, what the consumer says is not to hide that.
            await asyncio.wait({task})
        await task


def pending(redis: Redis, stream: str, group: str = "g") -> int | None:
    """How many messages are pending in the group, parked ones included; None without a group."""
    try:
        return redis.xpending(stream, group)["pending"]
    except ResponseError:
        return None


def holders(redis: Redis, stream: str, group: str = "g") -> dict[bytes, int]:
    """How many messages are pending with each consumer of the group, if there is one."""
    try:
        return {row["name"]: row["pending"] for row in redis.xinfo_consumers(stream, group)}
    except ResponseError:
        return {}


def members(redis: Redis, stream: str, group: str = "g") -> set[bytes]:
    """The consumers of the group, but for the reserved one."""
    return set(holders(redis, stream, group)) - {PARKED}


def is_settled(redis: Redis, stream: str, group: str = "g") -> Callable[[], bool]:
    """Whether the group has delivered all there is and none of it is pending."""

    def look() -> bool:
        for info in redis.xinfo_groups(stream):
            if info["name"] == group.encode():
                last = redis.xinfo_stream(stream)["last-generated-id"]
                return info["pending"] == 0 and info["last-delivered-id"] == last
        return False

    return look


async def counted(consumer: Any, **least: int) -> Any:
    """What the consumer has counted, if it is so much at least; else None."""
    counters = (await consumer.health()).counters
    is_enough = all(getattr(counters, name) >= count for name, count in least.items())
    return counters if is_enough else None


def dead_letters(redis: Redis, stream: str) -> list[tuple[str, dict[str, str]]]:
    """The entries of the dead-letter stream, and what each says of where it came from."""
    return [
        (
            entry_id.decode(),
            {
                name.decode().partition(DEAD)[2]: value.decode(errors="replace")
                for name, value in fields.items()
                if DEAD.encode() in name
            },
        )
        for entry_id, fields in redis.xrange(f"{{{stream}}}.dead")
    ]


class Process:
    """A consumer in a process of its own (`consumer_program.py`), which may be killed."""

    def __init__(self, flavour: str, url: str, stream: str, action: str, **options: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), flavour, url, stream, action, json.dumps(options)],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.output = self.errors = ""

    def signal(self, number: int) -> None:
        self._process.send_signal(number)
        if number in (9, 19):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def ended(self, timeout: float = 20) -> int:
        """Wait for its end; return its exit code."""
        self.output, self.errors = self._process.communicate(timeout=timeout)
        return self._process.returncode

    def close(self) -> None:
        if not self.has_ended:
            self._process.kill()
        if not self._process.stdout.closed:
            self._process.communicate(timeout=10)


@contextlib.contextmanager
def process(
    flavour: Any, server: Any, stream: str, action: str, **options: Any
) -> Iterator[Process]:
    """Run a consumer in another process for the length of the block."""
    made = Process(flavour.name, server.url, stream, action, **options)
    try:
        yield made
    finally:
        made.close()
