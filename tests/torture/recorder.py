"""A group that records all entries before they are trimmed, and sees whether any goes too early."""

import threading
import time
from random import Random
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from servers import PrivateServer
from torture.settings import RECORDER, STREAMS
from torture.truth import Fields

_STEP_SECONDS = 0.2
_SLOW_SECONDS = 3.0
_MANY = 10_000

# What is pending in a group and is not in the stream any more; how long the stream is.
_LOOK = """
local gone = {}
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  for _, row in ipairs(redis.call('XPENDING', KEYS[1], info[2], '-', '+', ARGV[1])) do
    if #redis.call('XRANGE', KEYS[1], row[1], row[1]) == 0 then
      gone[#gone + 1] = {row[1], info[2], row[2]}
    end
  end
end
return {redis.call('XLEN', KEYS[1]), gone}
"""


class Recorder:
    """Reads as any group does: at times at once, at times slowly, at times not at all.

    Until it has acknowledged an entry, no retention may remove it. So it has them all in the end.
    """

    def __init__(self, server: PrivateServer, seed: str) -> None:
        self._server, self._rng = server, Random(seed)
        self._guard = threading.Lock()
        self._entries: dict[str, dict[str, Fields]] = {stream: {} for stream in STREAMS}
        self._gone: dict[tuple[str, str, str], str] = {}
        self._seen_at: dict[tuple[str, str], float] = {}
        self._is_over, self._hurries = threading.Event(), threading.Event()
        self._reads, self._holds_seconds, self._until = True, 0.0, 0.0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self.longest = 0
        """How many entries a stream had at most when it was looked at."""
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join(60)

    def hurry(self) -> None:
        """Record everything soon."""
        self._hurries.set()

    def take_time(self) -> None:
        """Be slow again, now and then."""
        self._hurries.clear()

    def entries(self) -> dict[str, dict[str, Fields]]:
        """Return what was recorded so far, for each stream by id."""
        with self._guard:
            return {stream: dict(entries) for stream, entries in self._entries.items()}

    def problems(self) -> list[str]:
        """Return what went too early."""
        with self._guard:
            found = list(self._gone.values())
        return found + ([f"the recorder failed: {self.failure!r}"] if self.failure else [])

    def miscounted(self, client: Redis) -> list[str]:
        """Return for which streams the server counts other entries; it does since Redis 7.0."""
        counts = {name: client.xinfo_stream(name).get("entries-added") for name in STREAMS}
        recorded = {name: len(entries) for name, entries in self.entries().items()}
        return [
            f"{count} entries were added to {name}, and {recorded[name]} were seen"
            for name, count in counts.items()
            if count not in (None, recorded[name])
        ]

    def _run(self) -> None:
        try:
            with self._server.client(socket_timeout=2) as client:
                while not self._is_over.wait(_STEP_SECONDS):
                    self._choose()
                    try:
                        for stream in STREAMS:
                            self._step(client, stream)
                    except RedisError:
                        # The server is away; what was read is pending.
                        continue
        except BaseException as error:  # noqa: BLE001 - whoever checks tells
            self.failure = error

    def _choose(self) -> None:
        now = time.monotonic()
        if self._hurries.is_set():
            self._reads, self._holds_seconds, self._until = True, 0.0, 0.0
        elif now > self._until:
            self._reads = self._rng.random() < 0.8
            self._holds_seconds = self._rng.choice([0.0, 0.0, self._rng.uniform(0, _SLOW_SECONDS)])
            self._until = now + self._rng.uniform(1, 3)

    def _step(self, client: Any, stream: str) -> None:
        if self._reads:
            client.xreadgroup(RECORDER, RECORDER, {stream: ">"}, count=_MANY)
        # With all that was read when a reply was lost.
        [(_, pending)] = client.xreadgroup(RECORDER, RECORDER, {stream: "0"}, count=_MANY)
        now, done = time.monotonic(), []
        with self._guard:
            for raw_id, fields in pending:
                message_id = raw_id.decode()
                if fields:
                    self._entries[stream].setdefault(message_id, fields)
                if now - self._seen_at.setdefault((stream, message_id), now) >= self._holds_seconds:
                    done.append(message_id)
        length, gone = client.eval(_LOOK, 1, stream, _MANY)
        with self._guard:
            self.longest = max(self.longest, length)
            for row in gone:
                message_id, group, consumer = (part.decode() for part in row)
                self._gone[stream, message_id, group] = (
                    f"{stream} {message_id} is gone, and {consumer} in group {group} has not"
                    " acknowledged it"
                )
        if done:
            client.xack(stream, RECORDER, *done)
