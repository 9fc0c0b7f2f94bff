"""Health: what a probe is told, whether the consumer makes progress or not."""

import asyncio

import attrs
import pytest

from consuming import Recorder, counted, running


@pytest.fixture
async def publish(stream, key):
    """Publish messages with a running number; returns their ids."""
    await stream.create_input_stream(key, "g")

    async def publish(count=1):
        return [await stream.publish_message(key, {"n": n}) for n in range(count)]

    return publish


async def test_an_idle_consumer(flavour, pool, key, publish, until):
    """It runs, holds nothing, has never read or settled, and is not stuck."""
    consumer = flavour.consumer(pool, key)
    assert not (await consumer.health()).running
    async with running(consumer, Recorder()):
        await until(lambda: is_running(consumer))
        health = await consumer.health()
        assert (health.stuck, health.error, health.ready, health.handling) == (False, None, 0, 0)
        assert health.seconds_since_read is None
        assert health.seconds_since_settled is None
        [stream] = health.streams
        assert (stream.stream, stream.pending, stream.delayed, stream.dead_letters) == (
            key,
            0,
            0,
            0,
        )
        assert stream.oldest_pending_seconds is None
    assert not (await consumer.health()).running


async def is_running(consumer):
    return (await consumer.health()).running


async def test_the_figures(flavour, pool, key, publish, until):
    """One message is handled, one delayed, one dead; the lag is what nobody has read."""
    await publish(3)
    gate = asyncio.Event()

    async def handle(message):
        if message.data["n"] == 0:
            await message.reject()
        elif message.data["n"] == 1:
            await message.nack(3600)
        else:
            await gate.wait()

    consumer = flavour.consumer(pool, key)
    async with running(consumer, handle):
        await until(lambda: is_handling(consumer, 1))
        await until(lambda: counted(consumer, dead_lettered=1, retried=1))
        health = await consumer.health()
        [stream] = health.streams
        assert (stream.pending, stream.delayed, stream.dead_letters) == (2, 1, 1)
        assert 0 <= stream.oldest_pending_seconds < 60
        assert 0 <= health.seconds_since_read < 60
        assert 0 <= health.seconds_since_settled < 60
        assert 0 < health.longest_handling_seconds < 60
        gate.set()


async def is_handling(consumer, count):
    return (await consumer.health()).handling == count


async def test_lag(flavour, pool, key, publish, server, until):
    """What was not delivered yet; Redis 6.2 cannot say."""
    gate = asyncio.Event()

    async def handle(message):
        await gate.wait()

    consumer = flavour.consumer(pool, key, prefetch=1)
    await publish(5)
    async with running(consumer, handle):
        await until(lambda: is_handling(consumer, 1))
        is_old = server.info.name == "Redis" and server.info.version < (7, 0)
        wanted = None if is_old else 3
        await until(lambda: has_lag(consumer, wanted))
        gate.set()


async def has_lag(consumer, lag):
    [stream] = (await consumer.health()).streams
    return stream.lag == lag


async def test_stuck(flavour, pool, key, publish, until):
    """A handler that hangs is no progress; when it has ended, there is some again."""
    gate = asyncio.Event()

    async def handle(message):
        await gate.wait()

    consumer = flavour.consumer(pool, key, stuck_seconds=0.2)
    async with running(consumer, handle):
        await until(lambda: is_running(consumer))
        assert not await is_stuck(consumer)
        await publish(1)
        await until(lambda: is_stuck(consumer))
        gate.set()
        await until(lambda: counted(consumer, acknowledged=1))
        assert not await is_stuck(consumer)


async def is_stuck(consumer):
    return (await consumer.health()).stuck


async def test_a_handler_within_its_limit_is_no_reason(flavour, pool, key, publish, until):
    """A handling time that was allowed is longer than stuck_seconds: that counts."""
    gate = asyncio.Event()

    async def handle(message):
        await gate.wait()

    await publish(1)
    consumer = flavour.consumer(pool, key, stuck_seconds=0.1, handler_timeout_seconds=60)
    async with running(consumer, handle):
        await until(lambda: is_handling(consumer, 1))
        await until(lambda: has_been_handling(consumer, 0.5))
        assert not await is_stuck(consumer)
        gate.set()


async def has_been_handling(consumer, seconds):
    return (await consumer.health()).longest_handling_seconds > seconds


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_a_server_that_is_away(flavour, params, key, private_server, until, how):
    """The probe is answered all the same: it says so, and what the consumer knows by itself."""
    server = private_server()
    away = attrs.evolve(params, host=server.host, port=server.port)
    async with flavour.pool(away) as pool:
        consumer = flavour.consumer(pool, [key, f"{key}:2", f"{key}:3"])
        async with running(consumer, Recorder()):
            await until(lambda: is_running(consumer))
            getattr(server, how)()
            try:
                for _ in range(4):
                    health = await asyncio.wait_for(consumer.health(), 4)
                    assert health.running
                    assert health.error
                    assert [stream.pending for stream in health.streams] == [None, None, None]
            finally:
                server.start((b"-LOADING",)) if how == "kill" else server.resume()


async def test_a_probe_costs_the_same_however_much_is_pending(flavour, pool, key, redis, stream):
    """Five commands for a stream, none of them a scan of what is pending."""
    await stream.create_input_stream(key, "g")
    consumer = flavour.consumer(pool, key)
    costs = []
    for count in (0, 20_000):
        with redis.pipeline(transaction=False) as pipe:
            for _ in range(count):
                pipe.xadd(key, {"n": 1})
            pipe.execute()
        redis.xreadgroup("g", "other", {key: ">"}, count=count or 1)
        redis.config_resetstat()
        assert (await consumer.health()).streams[0].pending == count
        stats = redis.info("commandstats")
        costs.append(
            {
                name: stats[f"cmdstat_{name}"]["calls"]
                for name in ("time", "xpending", "zcard", "xlen")
            }
        )
    assert costs[0] == costs[1] == {"time": 1, "xpending": 1, "zcard": 1, "xlen": 1}
