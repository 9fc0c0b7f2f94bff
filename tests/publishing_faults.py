"""Publishing while everything breaks: who publishes, what strikes, what came of it."""

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import attrs
from redis import Redis

from proxy import Proxy
from step_redis import PartlyPublishedError, PoolError, ServerError, StepRedisError

PUBLISHES = int(os.environ.get("STEP_REDIS_TEST_PUBLISHES", "300"))
"""How many calls publish; one in ten of them publishes a batch."""

SECONDS = 30 + PUBLISHES / 20
"""How long that may take."""

SEED = os.environ.get("STEP_REDIS_TEST_SEED")
BATCH_SIZES = (1, 2, 7, 30, 100, 499, 500, 501, 1000, 1200)

Written = list[tuple[str, int]]
"""Entries: id and the number of the message."""


def seed() -> int:
    """What a run is made of: its own each time, unless the environment gives one."""
    return Random().randrange(1_000_000) if SEED is None else int(SEED)


@attrs.define
class Claims:
    """What publishers were told about their messages, by number and stream."""

    ids: dict[int, tuple[str, str]] = attrs.field(factory=dict)
    """Written once, under this id of this stream."""
    once: set[int] = attrs.field(factory=set)
    """Written once, under an id that nobody was told."""
    perhaps: set[int] = attrs.field(factory=set)
    """Written once or not at all."""
    never: set[int] = attrs.field(factory=set)
    """Not written."""

    def told(self, stream: str, number: int, entry_id: str) -> None:
        self.ids[number] = stream, entry_id

    def failed(self, numbers: Iterable[int], error: StepRedisError) -> None:
        """Take note of messages of which an error says what may have happened."""
        (self.perhaps if error.outcome_unknown else self.never).update(numbers)

    def partly(self, stream: str, numbers: list[int], error: PartlyPublishedError) -> None:
        """Take note of the messages to a stream that are accounted for one by one."""
        ids = error.written.get(stream, [])
        may_be = len(ids) + error.unknown.get(stream, 0)
        for number, entry_id in zip(numbers, ids, strict=False):
            self.told(stream, number, entry_id)
        self.perhaps.update(numbers[len(ids) : may_be])
        self.never.update(numbers[may_be:])

    def broken_by(self, written: dict[str, Written]) -> list[str]:
        """Return what was claimed and is not so."""
        places: dict[int, list[tuple[str, str]]] = {}
        for stream, entries in written.items():
            for entry_id, number in entries:
                places.setdefault(number, []).append((stream, entry_id))
        wrong = [f"{n} was written at {at}" for n, at in places.items() if len(at) > 1]
        wrong += [
            f"{n}: published as {place}, written at {places.get(n)}"
            for n, place in self.ids.items()
            if places.get(n) != [place]
        ]
        wrong += [f"{n} is to be written once and was not" for n in self.once - places.keys()]
        wrong += [f"{n} was not to be written, and was" for n in self.never & places.keys()]
        known = self.ids.keys() | self.once | self.perhaps | self.never
        wrong += [f"{n} was written and never published" for n in places.keys() - known]
        twice = Counter((*self.ids, *self.once, *self.perhaps, *self.never))
        wrong += [f"{n} was told in two ways" for n, count in twice.items() if count > 1]
        return wrong


@asynccontextmanager
async def beside(*jobs: Callable[[asyncio.Event], Any]) -> AsyncIterator[None]:
    """Run jobs beside the block; each is given the event that tells it to end."""
    stop = asyncio.Event()
    tasks = [asyncio.ensure_future(job(stop)) for job in jobs]
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait(tasks)
    for task in tasks:
        task.result()


class Recorder:
    """Takes note of every entry at the server itself, then deletes and trims it."""

    def __init__(self, client: Redis, streams: Iterable[str], seed: int) -> None:
        self.written: dict[str, Written] = {stream: [] for stream in streams}
        self.removed = 0
        self._client = client
        self._rng = Random(seed)

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            for stream in self.written:
                await asyncio.to_thread(self._step, stream)
            await asyncio.sleep(self._rng.uniform(0.001, 0.01))
        for stream in self.written:
            self._read(stream, None)

    def all_added(self) -> bool:
        """Whether as many entries were noted as the server says were ever added, if it does."""
        for stream, entries in self.written.items():
            if self._client.exists(stream):
                added = self._client.xinfo_stream(stream).get("entries-added", len(entries))
                if added != len(entries):
                    return False
        return True

    def _step(self, stream: str) -> None:
        action = self._rng.choice(("read", "trim", "trim", "delete"))
        found = self._read(stream, self._rng.randrange(30) if action == "trim" else None)
        if action == "delete" and found:
            several = self._rng.sample(found, self._rng.randint(1, len(found)))
            self.removed += self._client.xdel(stream, *several)

    def _read(self, stream: str, keep: int | None) -> list[str]:
        """Take note of what is new; nothing comes between that and the trimming."""
        entries = self.written[stream]
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.xrange(stream, f"({entries[-1][0]}" if entries else "-")
            if keep is not None:
                pipeline.xtrim(stream, maxlen=keep, approximate=False)
            found, *trimmed = pipeline.execute()
        entries += [(entry_id.decode(), int(fields[b"n"])) for entry_id, fields in found]
        self.removed += sum(trimmed)
        return [entry_id.decode() for entry_id, _ in found]


class Striker:
    """Strikes at random what goes through a proxy, as long as it runs; it arms few faults at once.

    What is held is let go at random: before the client gives up waiting, or after its retry.
    """

    def __init__(self, proxy: Proxy, client: Redis, matching: Iterable[str], seed: int) -> None:
        self._proxy, self._client = proxy, client
        self._matching = [text.encode() for text in matching]
        self._rng = Random(seed)
        self.figures: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        rare: list[Callable[[], None]] = [self._cut, self._kill, self._flush_scripts]
        release = [self._proxy.release_replies, self._proxy.release_requests]
        while not stop.is_set():
            await asyncio.sleep(self._rng.uniform(0, 0.01))
            if self._proxy.armed < 5:
                self._arm()
            chance = self._rng.random()
            if chance < 0.03:
                self._rng.choice(rare)()
            elif chance < 0.06:
                self._rng.choice(release)()

    def _arm(self) -> None:
        rng, proxy = self._rng, self._proxy
        # A new connection's first request, now and then.
        matching = b"CLIENT" if rng.random() < 0.05 else rng.choice(self._matching)
        arm = rng.choices(
            [
                proxy.drop_requests,
                proxy.drop_replies,
                lambda *args, **kw: proxy.cut_reply_after(rng.randint(1, 60), *args, **kw),
                proxy.hold_requests,
                proxy.hold_replies,
            ],
            weights=[3, 5, 3, 2, 1],
        )[0]
        arm(matching, after=rng.randrange(8), times=1)

    def _cut(self) -> None:
        self._proxy.cut()
        self.figures["all connections cut"] += 1

    def _kill(self) -> None:
        """Let the server close some of the connections."""
        for row in self._client.client_list():
            if row["addr"] in self._proxy.addresses and self._rng.random() < 0.3:
                self.figures["connections killed"] += self._client.client_kill_filter(row["id"])

    def _flush_scripts(self) -> None:
        self._client.script_flush()
        self.figures["scripts flushed"] += 1


@attrs.define
class Publisher:
    """Publishes numbered messages in all ways there are, and takes note of what it is told."""

    streams: list[str]
    """Where to; the first of them mostly."""
    objects: list[tuple[Any, float]]
    """Stream objects, and how often each is used."""
    claims: Claims
    numbers: Iterator[int]
    rng: Random
    figures: Counter[str]

    async def run(self, calls: Iterator[object]) -> None:
        """Publish as long as there are calls left, which publishers share."""
        kinds = [self._alone, self._batch, self._several, self._once, self._later]
        for _ in calls:
            [kind] = self.rng.choices(kinds, weights=[60, 7, 3, 14, 16])
            self.figures[kind.__name__.strip("_")] += 1
            await kind()

    def _stream(self) -> Any:
        objects, weights = zip(*self.objects, strict=True)
        return self.rng.choices(objects, weights=weights)[0]

    def _failed(self, numbers: Iterable[int], error: StepRedisError) -> None:
        self.claims.failed(numbers, error)
        unknown = ", unknown" if error.outcome_unknown else ""
        self.figures[f"failed{unknown}: {type(error).__name__}"] += 1

    async def _alone(self) -> None:
        number, stream = next(self.numbers), self.rng.choice(self.streams)
        try:
            entry_id = await self._stream().publish_message(stream, {"n": number})
        except StepRedisError as error:
            self._failed([number], error)
        else:
            self.claims.told(stream, number, entry_id)

    def _take(self, most: int) -> list[int]:
        size = self.rng.choice([size for size in BATCH_SIZES if size <= most])
        return list(itertools.islice(self.numbers, size))

    async def _batch(self) -> None:
        stream, numbers = self.streams[0], self._take(1200)
        try:
            ids = await self._stream().publish_messages(stream, ({"n": n} for n in numbers))
        except PartlyPublishedError as error:
            self._count_partly(error)
            self.claims.partly(stream, numbers, error)
        except StepRedisError as error:
            self._failed(numbers, error)
        else:
            self._told_all(stream, numbers, ids)

    async def _several(self) -> None:
        several = {stream: self._take(600) for stream in self.streams}
        messages = {stream: ({"n": n} for n in numbers) for stream, numbers in several.items()}
        try:
            ids = await self._stream().publish_many(messages)
        except PartlyPublishedError as error:
            self._count_partly(error)
            for stream, numbers in several.items():
                self.claims.partly(stream, numbers, error)
        except StepRedisError as error:
            self._failed(itertools.chain(*several.values()), error)
        else:
            for stream, numbers in several.items():
                self._told_all(stream, numbers, ids[stream])

    def _count_partly(self, error: PartlyPublishedError) -> None:
        self.figures["failed partly" + (", unknown" if error.outcome_unknown else "")] += 1

    def _told_all(self, stream: str, numbers: list[int], ids: list[str]) -> None:
        assert len(ids) == len(numbers)
        order = [tuple(map(int, entry_id.split("-"))) for entry_id in ids]
        assert order == sorted(order), "the messages of a batch are not in order"
        for number, entry_id in zip(numbers, ids, strict=True):
            self.claims.told(stream, number, entry_id)

    async def _once(self) -> None:
        """Publish under a key of ours until an id comes, and once more."""
        number, stream = next(self.numbers), self.rng.choice(self.streams)
        publish = {"stream_name": stream, "message": {"n": number}, "dedup_id": f"d:{number}"}
        entry_id = await self._insist(lambda: self._stream().publish_message(**publish))
        self.claims.told(stream, number, entry_id)
        if self.rng.random() < 0.5:
            again = await self._insist(lambda: self._stream().publish_message(**publish))
            assert again == entry_id, f"{number} is {entry_id}, and when published again {again}"

    async def _insist(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return await call()
            except (PoolError, ServerError) as error:
                self.figures[f"insisted: {type(error).__name__}"] += 1

    async def _later(self) -> None:
        number, stream = next(self.numbers), self.rng.choice(self.streams)
        delay = self.rng.choice([0, self.rng.uniform(0, 0.5), 0.5])
        dedup_id = self.rng.choice([None, f"d:{number}"])
        try:
            handle = await self._stream().publish_message(
                stream, {"n": number}, delay_seconds=delay, dedup_id=dedup_id
            )
        except StepRedisError as error:
            self._failed([number], error)
            return
        if self.rng.random() < 0.5:
            await asyncio.sleep(self.rng.uniform(0, 0.1))
            await self._cancel(number, handle)
        else:
            self.claims.once.add(number)

    async def _cancel(self, number: int, handle: str) -> None:
        try:
            cancelled = await self._stream().cancel_delayed(handle)
        except StepRedisError as error:
            self.figures[f"cancelling failed: {type(error).__name__}"] += 1
            may_be, certain = self.claims.perhaps, self.claims.once
            (may_be if error.outcome_unknown else certain).add(number)
        else:
            self.figures["cancelled" if cancelled else "too late to cancel"] += 1
            (self.claims.never if cancelled else self.claims.once).add(number)


def mover(
    stream: Any, names: Iterable[str], figures: Counter[str]
) -> Callable[[asyncio.Event], Any]:
    """Return a job that publishes what is due again and again, as others do beside it."""

    async def run(stop: asyncio.Event) -> None:
        while not stop.is_set():
            for name in names:
                try:
                    figures["moved, as far as told"] += await stream.publish_due(name)
                except StepRedisError:
                    figures["moving failed"] += 1
            await asyncio.sleep(0.02)

    return run


async def publish_all_due(stream: Any, names: Iterable[str]) -> None:
    """Publish what was delayed, until nothing is left."""
    for name in names:
        while (await stream.delayed(name)).count:
            await stream.publish_due(name)
            await asyncio.sleep(0.01)


def has_gone(client: Redis, proxy: Proxy) -> bool:
    """Whether the server has read all that came through a proxy, and closed the connections."""
    return not any(row["addr"] in proxy.addresses for row in client.client_list())
