"""Acknowledgements are gathered: fewer calls, and nothing else is to be seen of it."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from consuming import (
    PARKED,
    Recorder,
    counted,
    holders,
    is_settled,
    members,
    pending,
    process,
    running,
)
from step_redis.scripts import script

ACK = script("ack").sha.encode()


@pytest.fixture(autouse=True)
def loaded(redis):
    """What is held or lost is not the reply that the server does not have the script."""
    redis.script_load(script("ack").text)


def xacks(redis):
    return redis.info("commandstats").get("cmdstat_xack", {"calls": 0})["calls"]


@pytest.mark.parametrize("concurrency", [1, 16])
async def test_many_go_with_one_call(flavour, pool, key, redis, publish, until, concurrency):
    """Messages that are handled fast are acknowledged by far fewer calls than there are."""
    await publish(1)
    before = xacks(redis)

    async def handle(message):
        return None

    def handle_blocking(message):
        return None

    with redis.pipeline() as pipe:
        for n in range(3000):
            pipe.xadd(key, {"n": n})
        pipe.execute()
    handler = handle if flavour.name == "asyncio" else handle_blocking
    consumer = flavour.consumer(pool, key, concurrency=concurrency)
    # A blocking handler is of the flavour itself: others would take turns with the test's loop.
    async with running(consumer, handler):
        await until(is_settled(redis, key))
        counters = await until(lambda: counted(consumer, acknowledged=3001))
    assert counters.received == 3001
    assert xacks(redis) - before < 600


async def test_a_slow_handler_does_not_delay_others(
    flavour, pool, key, redis, publish, until, release
):
    """What is handled is acknowledged soon, though the next handler takes long."""
    [_, second] = await publish(2)

    async def hang_at_second(message):
        if message.id == second:
            await release.wait()

    handled = Recorder(hang_at_second)
    async with running(flavour.consumer(pool, key, prefetch=2), handled.handle):
        await until(lambda: len(handled.ids) == 2)
        await until(lambda: pending(redis, key) == 1, timeout=0.5)
        release.set()


async def test_a_slow_handler_of_another_stream_does_not_delay_it(
    flavour, pool, stream, key, redis, publish, until, release
):
    """What waits to be acknowledged is not forgotten when the worker goes on elsewhere."""
    other = f"{key}:other"
    await stream.create_input_stream(other, "g")
    await publish(1)

    async def is_ready():
        return (await consumer.health()).ready == 1

    async def act(message):
        if message.stream == other:
            await release.wait()
            return
        await stream.publish_message(other, {"n": 1})
        await until(is_ready)

    handled = Recorder(act)
    consumer = flavour.consumer(pool, [key, other])
    async with running(consumer, handled.handle):
        await until(lambda: len(handled.ids) == 2)
        await until(lambda: pending(redis, key) == 0, timeout=0.5)
        assert pending(redis, other) == 1
        release.set()
        await until(is_settled(redis, other))


async def test_what_ack_says_is_so(flavour, pool, key, redis, publish, until):
    """When it returns, the server has confirmed, also if several went with one call."""
    await publish(200)
    left = []

    async def ack(message):
        await message.ack()
        left.extend(redis.xpending_range(key, "g", message.id, message.id, 1))

    handled = Recorder(ack)
    async with running(flavour.consumer(pool, key, concurrency=8), handled.handle):
        await until(is_settled(redis, key))
    assert len(handled.ids) == 200
    assert left == []


async def test_a_crash_in_between(flavour, server, proxy, key, redis, publish, until):
    """What was handled and not acknowledged when the process was killed is delivered again."""
    ids = await publish(5)
    proxy.hold_requests(ACK)
    through = SimpleNamespace(url=f"redis://{proxy.host}:{proxy.port}")
    with process(flavour, through, key, "return", lease_seconds=1) as victim:
        # In threads a worker may be waiting for an acknowledgement before it has handled all.
        await until(lambda: redis.llen(f"{key}:done"))
        victim.signal(9)
    before = {line.decode().split()[0] for line in redis.lrange(f"{key}:done", 0, -1)}
    assert before <= {
        row["message_id"].decode() for row in redis.xpending_range(key, "g", "-", "+", 9)
    }
    handled = Recorder()
    params = flavour.api.StepRedisPoolParams.from_url(server.url)
    async with flavour.pool(params) as pool, running(flavour.consumer(pool, key), handled.handle):
        await until(is_settled(redis, key))
    assert sorted(handled.ids) == sorted(ids)
    again = dict(zip(handled.ids, handled.counts, strict=True))
    assert {again[message_id] for message_id in before} == {2}


async def test_stopping_acknowledges_what_was_handled(flavour, pool, key, redis, publish):
    """When run returns, what was handled is acknowledged, and only the rest handed back."""
    await publish(100)
    consumer = flavour.consumer(pool, key)

    async def stop_at_30(message):
        if len(handled.ids) == 30:
            consumer.stop()

    handled = Recorder(stop_at_30)
    async with consumer:
        await consumer.run(handled.handle)
    assert len(handled.ids) == 30
    assert pending(redis, key) == holders(redis, key)[PARKED]
    left = {row["message_id"].decode() for row in redis.xpending_range(key, "g", "-", "+", 100)}
    assert not left & set(handled.ids)
    assert members(redis, key) == set()


async def test_so_many_may_wait(flavour, behind, key, redis, proxy, publish, until):
    """While acknowledging does not get on, no more is handled; all is settled once it does."""
    await publish(1)
    with redis.pipeline() as pipe:
        for n in range(2500):
            pipe.xadd(key, {"n": n})
        pipe.execute()
    proxy.hold_requests(ACK, times=None)
    handled = Recorder()
    consumer = flavour.consumer(behind, key)
    async with running(consumer, handled.handle):
        await until(lambda: proxy.held_requests)
        await asyncio.sleep(0.8)
        count = len(handled.ids)
        await asyncio.sleep(0.3)
        assert len(handled.ids) == count <= 1001
        proxy.heal()
        await until(is_settled(redis, key), timeout=30)
        assert (await consumer.health()).counters.acknowledged == 2501
    assert len(set(handled.ids)) == len(handled.ids) == 2501


@pytest.mark.parametrize("fault", ["drop_replies", "drop_requests"])
async def test_a_lost_reply(flavour, behind, key, redis, proxy, publish, until, fault):
    """Each of those that went with a call whose reply is lost is settled once, and handled once."""
    ids = await publish(60)
    getattr(proxy, fault)(ACK)
    handled = Recorder()
    consumer = flavour.consumer(behind, key, concurrency=4)
    async with running(consumer, handled.handle):
        await until(is_settled(redis, key))
        counters = await until(lambda: counted(consumer, acknowledged=60))
    assert sorted(handled.ids) == sorted(ids)
    assert (counters.acknowledged, counters.moves) == (60, 1)


async def test_the_lease_is_lost_meanwhile(
    flavour, behind, key, redis, proxy, publish, until, caplog
):
    """What was handled and cannot be acknowledged any more is told of, and comes again."""
    ids = await publish(20)
    proxy.hold_requests(ACK)
    handled = Recorder()
    consumer = flavour.consumer(behind, key, lease_seconds=1)
    async with running(consumer, handled.handle):
        await until(lambda: proxy.held_requests)
        proxy.drop_requests(b"EVAL", times=None)
        await until(lambda: "handled and not acknowledged" in caplog.text)
        proxy.heal()
        await until(is_settled(redis, key), timeout=20)
        assert (await consumer.health()).counters.leases_lost >= 1
    assert set(handled.ids) == set(ids)
    told = [one for one in caplog.records if "not acknowledged" in one.getMessage()]
    assert {record.levelname for record in told} == {"ERROR"}
    assert key in told[0].getMessage()


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_cancelling_run(flavour, pool, key, redis, publish, until):
    """A cancelled run acknowledges what was handled, and hands back the rest."""
    ids = await publish(30)

    async def hang_at_last(message):
        if message.id == ids[-1]:
            await asyncio.Event().wait()

    handled = Recorder(hang_at_last)
    consumer = flavour.consumer(pool, key)
    task = asyncio.ensure_future(consumer.run(handled.handle))
    await until(lambda: len(handled.ids) == 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert holders(redis, key) == {PARKED: 1}
    assert (await consumer.health()).counters.acknowledged == 29


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_handlers_that_never_wait(flavour, pool, key, redis, publish, until):
    """They do not keep the event loop from what else it has to do."""
    await publish(1)
    with redis.pipeline() as pipe:
        for n in range(3000):
            pipe.xadd(key, {"n": n})
        pipe.execute()
    turns, seen = 0, set()

    async def look():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def work(message):
        seen.add(turns)
        time.sleep(0.0002)

    looking = asyncio.ensure_future(look())
    async with running(flavour.consumer(pool, key, prefetch=3000), Recorder(work).handle):
        await until(is_settled(redis, key))
    looking.cancel()
    # In so many turns of the loop they were handled; it takes some dozen reads.
    assert len(seen) > 300
