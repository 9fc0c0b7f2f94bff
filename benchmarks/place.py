"""Where one measurement takes place: a stream on the server, and what must be in it."""

from collections.abc import Iterable
from typing import Any

import attrs
import redis

from .payloads import NUMBER, Payload, fill
from .server import Server

STREAM = "bench"
GROUP = "workers"
CONSUMER = "worker"

_PAGE = 1000


class CheckError(Exception):
    """A message did not arrive, arrived twice or changed, or was not acknowledged."""


@attrs.frozen
class Place:
    """A stream that one contender has for itself."""

    server: Server
    payload: Payload
    looker: redis.Redis = attrs.field(repr=False)
    """Looks at the server from outside."""
    checks: bool = False
    """Whether contents are compared too, in a run whose time does not count."""
    others: int = 0
    """How many messages consumers of other programs hold meanwhile, unacknowledged."""
    stream: str = STREAM
    group: str = GROUP
    consumer: str = CONSUMER

    def message(self, number: int) -> dict[str, str]:
        """Return the message of this number."""
        return self.payload.message(number)

    def clear(self) -> None:
        """Empty the server, which belongs to this run."""
        self.looker.flushall()

    def fill(self, count: int) -> None:
        """Put messages into the stream, for a group that begins with the first one."""
        self.looker.xgroup_create(self.stream, self.group, "0", mkstream=True)
        fill(self.looker, self.stream, self.payload, count)

    def pending(self) -> int:
        """Return how many messages are not acknowledged, without those that others hold."""
        summary: Any = self.looker.xpending(self.stream, self.group)
        return int(summary["pending"]) - self.others

    def check_published(self, count: int) -> None:
        """Check that the stream holds each message once, and nothing else."""
        length: Any = self.looker.xlen(self.stream)
        if length != count:
            raise CheckError(f"{length} messages of {count} are in the stream")
        if self.checks:
            self.check_contents(_entries(self.server, self.stream), count)

    def check_consumed(self, count: int, taken: int) -> None:
        """Check that each message was handled once and is acknowledged."""
        if taken != count:
            raise CheckError(f"{taken} messages of {count} were handled")
        groups: Any = self.looker.xinfo_groups(self.stream)
        info: Any = self.looker.xinfo_stream(self.stream)
        [group] = [one for one in groups if one["name"] == self.group.encode()]
        if group["last-delivered-id"] != info["last-generated-id"]:
            raise CheckError("not all messages were delivered")
        if group["pending"] != self.others:
            raise CheckError(f"{group['pending'] - self.others} messages are not acknowledged")

    def check_contents(self, messages: Iterable[dict[str, str]], count: int) -> None:
        """Check that these are messages 0 to ``count - 1``, in any order."""
        numbers = set()
        for message in messages:
            number = int(message[NUMBER])
            if message != self.message(number):
                raise CheckError(f"message {number} is not what was published")
            numbers.add(number)
        if numbers != set(range(count)):
            raise CheckError(f"{len(numbers)} different messages of {count} arrived")


def _entries(server: Server, stream: str) -> Iterable[dict[str, str]]:
    with server.client(decode_responses=True) as client:
        start = "-"
        while page := _page(client, stream, start):
            yield from (fields for _, fields in page)
            start = f"({page[-1][0]}"


def _page(client: redis.Redis, stream: str, start: str) -> list[tuple[str, dict[str, str]]]:
    page: Any = client.xrange(stream, start, "+", _PAGE)
    return list(page)
