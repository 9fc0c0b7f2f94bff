"""Many publishers amid faults at random, and servers that are killed: each id was written once."""

import asyncio
import itertools
from collections import Counter
from random import Random

import attrs
import pytest

from publishing_faults import (
    PUBLISHES,
    SECONDS,
    Claims,
    Publisher,
    Recorder,
    Striker,
    beside,
    has_gone,
    mover,
    publish_all_due,
    seed,
)

PUBLISHERS = 20


async def test_everything_is_written_once_whatever_strikes(
    flavour, server, params, proxy, redis, key, until
):
    """Each id returned was written once, though faults of all kinds strike and entries go."""
    chosen = seed()
    rng = Random(chosen)
    streams = [key, f"{key}:other"]
    through = attrs.evolve(
        params,
        host=proxy.host,
        port=proxy.port,
        socket_timeout=0.4,
        socket_connect_timeout=10,
        protocol=rng.choice((2, 3)),
    )
    claims, figures = Claims(), Counter()
    recorder = Recorder(redis, streams, rng.random())
    with server.client() as client:
        striker = Striker(proxy, client, streams, rng.random())
        async with (
            beside(recorder.run),
            flavour.pool(through) as pool,
            flavour.stream(pool) as patient,
            flavour.stream(pool, retry_seconds=0.3) as hasty,
            flavour.stream(pool, retry_seconds=0) as plain,
        ):
            movers = [mover(patient, streams, figures) for _ in range(3)]
            numbers, calls = itertools.count(), iter(range(PUBLISHES))
            objects = [(patient, 80), (hasty, 12), (plain, 8)]
            async with (
                beside(striker.run, *movers),
                asyncio.timeout(SECONDS),
                asyncio.TaskGroup() as group,
            ):
                for _ in range(PUBLISHERS):
                    own = Random(rng.random())
                    publisher = Publisher(streams, objects, claims, numbers, own, figures)
                    group.create_task(publisher.run(calls))
            proxy.heal()
            await until(lambda: not proxy.unanswered)
            async with asyncio.timeout(30):
                await publish_all_due(patient, streams)
            await pool.aclose()
            await until(lambda: has_gone(client, proxy))
    failed = sum(count for what, count in figures.items() if what.startswith("failed"))
    figures.update(striker.figures + proxy.struck)
    figures["requests arrived late"] = proxy.late_requests
    figures["entries removed"] = recorder.removed
    figures["entries"] = sum(map(len, recorder.written.values()))
    print(f"seed {chosen}:", *sorted(figures.items()), sep="\n  ")  # noqa: T201 - for -rP
    assert recorder.all_added(), f"seed {chosen}"
    assert not claims.broken_by(recorder.written), f"seed {chosen}"
    assert failed < PUBLISHES / 10
    assert proxy.struck.total() > PUBLISHES / 30


async def test_killed_servers_lose_no_ids(flavour, private_server, key, until):
    """A server killed again and again amid single and batched publishes: each is written once."""
    server = private_server("--appendonly", "yes", "--appendfsync", "always")
    params = flavour.api.StepRedisPoolParams(
        host=server.host, port=server.port, socket_timeout=2, socket_connect_timeout=10
    )
    claims, numbers = Claims(), itertools.count()
    stop = asyncio.Event()

    async def publish_singles(stream):
        while not stop.is_set():
            number = next(numbers)
            claims.told(key, number, await stream.publish_message(key, {"n": number}))

    async def publish_batches(stream):
        while not stop.is_set():
            several = list(itertools.islice(numbers, 1200))
            ids = await stream.publish_messages(key, ({"n": number} for number in several))
            for number, entry_id in zip(several, ids, strict=True):
                claims.told(key, number, entry_id)

    async def kill_now_and_then():
        for goal in (3000, 6000, 9000, 12000):
            await until(lambda goal=goal: len(claims.ids) > goal, timeout=30)
            await asyncio.to_thread(server.restart)
        stop.set()

    async with (
        flavour.pool(params) as pool,
        flavour.stream(pool) as stream,
        asyncio.TaskGroup() as group,
    ):
        for publish in [publish_singles] * 8 + [publish_batches] * 2:
            group.create_task(publish(stream))
        group.create_task(kill_now_and_then())
    with server.client() as client:
        written = [(id_.decode(), int(fields[b"n"])) for id_, fields in client.xrange(key)]
    assert not claims.broken_by({key: written})
    assert len(written) == next(numbers)


@pytest.mark.parametrize(
    ("claim", "written", "wrong"),
    [
        ({"ids": {1: ("s", "1-0")}}, [("1-0", 1), ("2-0", 1)], "1 was written at"),
        ({"ids": {1: ("s", "1-0")}}, [("2-0", 1)], "1: published as"),
        ({"ids": {1: ("s", "1-0")}}, [], "1: published as"),
        ({"ids": {1: ("s", "1-0"), 2: ("s", "2-0")}}, [("1-0", 2), ("2-0", 1)], "1: published as"),
        ({"once": {1}}, [], "1 is to be written once"),
        ({"perhaps": {1}}, [("1-0", 1), ("2-0", 1)], "1 was written at"),
        ({"never": {1}}, [("1-0", 1)], "1 was not to be written"),
        ({}, [("1-0", 1)], "1 was written and never published"),
        ({"once": {1}, "perhaps": {1}}, [("1-0", 1)], "1 was told in two ways"),
    ],
)
def test_what_is_not_as_claimed_is_found(claim, written, wrong):
    """The check of these tests finds each way in which an entry can be wrong."""
    assert any(text.startswith(wrong) for text in Claims(**claim).broken_by({"s": written}))
