"""Producers of both flavours, which note what was certainly published."""

import asyncio
import json
import logging
import threading
import time
from random import Random
from typing import Any

from servers import PrivateServer
from step_redis import StepRedisError, StepRedisPool, StepRedisPoolParams, StepRedisStream, sync
from torture import behaviour
from torture.settings import STREAMS

_BURST = 30
_SECONDS_EACH = 1 / 40
"""Between two messages of a producer, on average."""

_silent = logging.getLogger("torture.producers")
_silent.disabled = True


class Producer:
    """Publishes messages with numbers, each until it knows that it is there; pausable.

    Args:
        server: Where the raw entries go that cannot be decoded.
        port: Which port leads to the server for the other messages.
        name: What its numbers begin with.
        seed: From which its choices follow.
    """

    def __init__(self, server: PrivateServer, port: int, name: str, seed: str) -> None:
        self._server, self._name, self._rng = server, name, Random(seed)
        self._params = StepRedisPoolParams(host="127.0.0.1", port=port, socket_timeout=2)
        self._count = 0
        self._goes_on, self._is_over = threading.Event(), threading.Event()
        self._is_idle = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.published: list[tuple[str, str, str]] = []
        """Stream, id and number of each message whose publishing returned."""
        self.repeated = 0
        """How often publishing failed and was tried again."""
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._goes_on.set()
        self._thread.start()

    def pause(self) -> None:
        """Publish no more for now; return when nothing is under way."""
        self._is_idle.clear()
        self._goes_on.clear()
        assert self._is_idle.wait(60), f"producer {self._name} hangs"

    def go_on(self) -> None:
        self._goes_on.set()

    def end(self) -> None:
        self._is_over.set()
        self._goes_on.set()
        self._thread.join(60)

    def _run(self) -> None:
        try:
            self._publish_all()
        except BaseException as error:  # noqa: BLE001 - whoever checks tells
            self.failure = error
        finally:
            self._is_idle.set()

    def _publish_all(self) -> None:
        raise NotImplementedError

    def _rest(self) -> int:
        """Sleep a while; return how many messages to publish then; 0 to end."""
        size = self._rng.randint(1, _BURST)
        end = time.monotonic() + self._rng.uniform(0, 2 * size * _SECONDS_EACH)
        while time.monotonic() < end or not self._goes_on.is_set():
            if self._is_over.is_set():
                return 0
            if not self._goes_on.is_set():
                self._is_idle.set()
            time.sleep(0.02)
        return 0 if self._is_over.is_set() else size

    def _next(self) -> tuple[str, dict[str, Any]]:
        self._count += 1
        number = f"{self._name}-{self._count}"
        kind = behaviour.choose(self._rng)
        message = {"number": number, "kind": kind, "fails": self._rng.randint(1, 2)}
        message["text"] = "x" * self._rng.choice([10, 100, 1000])
        return self._rng.choice(STREAMS), message

    def _publish_broken(self, stream: str, message: dict[str, Any]) -> None:
        """Write an entry that says of itself what is not so, as another program might."""
        fields = {"number": message["number"], "kind": "broken", "_step:t": json.dumps({"no": "j"})}
        while True:
            try:
                with self._server.client(socket_timeout=2) as client:
                    message_id = client.xadd(stream, fields).decode()
            except Exception:  # noqa: BLE001 - tried again until it is there
                self.repeated += 1
                time.sleep(0.2)
            else:
                self.published.append((stream, message_id, message["number"]))
                return


class BlockingProducer(Producer):
    """The blocking flavour."""

    def _publish_all(self) -> None:
        with sync.StepRedisPool(self._params, _silent) as pool:
            stream = sync.StepRedisStream(pool, _silent)
            while size := self._rest():
                for _ in range(size):
                    self._publish(stream, *self._next())

    def _publish(self, stream: Any, name: str, message: dict[str, Any]) -> None:
        if message["kind"] == "broken":
            self._publish_broken(name, message)
            return
        while True:
            try:
                message_id = stream.publish_message(name, message)
            except StepRedisError:
                self.repeated += 1
                time.sleep(0.2)
            else:
                self.published.append((name, message_id, message["number"]))
                return


class AsyncioProducer(Producer):
    """The asyncio flavour; the messages of a burst are published at once."""

    def _publish_all(self) -> None:
        asyncio.run(self._publish_in_loop())

    async def _publish_in_loop(self) -> None:
        async with StepRedisPool(self._params, _silent) as pool:
            stream = StepRedisStream(pool, _silent)
            while size := self._rest():
                chosen = [self._next() for _ in range(size)]
                await asyncio.gather(*(self._publish(stream, *one) for one in chosen))

    async def _publish(self, stream: Any, name: str, message: dict[str, Any]) -> None:
        if message["kind"] == "broken":
            await asyncio.to_thread(self._publish_broken, name, message)
            return
        while True:
            try:
                message_id = await stream.publish_message(name, message)
            except StepRedisError:
                self.repeated += 1
                await asyncio.sleep(0.2)
            else:
                self.published.append((name, message_id, message["number"]))
                return
