"""Types are API: what users write, checked by mypy and pyright; not run."""

import asyncio
import datetime as dt
import logging
from typing import Any, assert_type

import redis
import redis.asyncio

import step_redis
import step_redis.sync
from step_redis import ReceivedMessage, StepRedisPoolParams

params = StepRedisPoolParams(host="redis.example.com", port=6380, ssl_enable=True)
from_url: StepRedisPoolParams = StepRedisPoolParams.from_url("redis://localhost", db=1)
from_env: StepRedisPoolParams = StepRedisPoolParams.from_env()
logger = logging.getLogger("example")


options = step_redis.ConsumerOptions(
    concurrency=16,
    retry=step_redis.RetryPolicy(delays=[0.1, 1], non_retryable=(KeyError, TypeError)),
    on_group_lost="resume",
)
step_redis.ConsumerOptions(retry=step_redis.RetryPolicy(delays=5))
step_redis.RetryPolicy(delays=step_redis.Exponential(first_seconds=0.5), non_retryable=[KeyError])
step_redis.ConsumerOptions(on_group_lost="never")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def handle(message: step_redis.StepRedisMessage) -> None:
    assert_type(message.id, str)
    assert_type(message.data, dict[Any, Any])
    assert_type(message.headers, dict[str, str])
    assert_type(message.provenance, dict[str, str])
    assert_type(message.error, str | None)
    assert_type(message.delivery_count, int)
    assert_type(message.published_at, dt.datetime | None)
    assert_type(await message.forward("{s}.t", {"data": 1}), str | None)
    await message.nack(1.5)
    await message.reject("why")
    await message.extend()
    message.ack()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


async def consume(pool: step_redis.StepRedisPool) -> None:
    async with step_redis.StepRedisConsumer(pool, "s", "g", options=options) as consumer:
        assert_type(consumer, step_redis.StepRedisConsumer)
        await consumer.run(handle, signals=True)
        await consumer.run(handle_blocking)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        async for message in consumer:
            assert_type(message, step_redis.StepRedisMessage)
            await message.ack()
        consumer.stop()
        health = await consumer.health()
        assert_type(health, step_redis.ConsumerHealth)
        assert_type(health.streams, tuple[step_redis.StreamHealth, ...])
        assert_type(health.streams[0].lag, int | None)
        assert_type(health.counters, step_redis.Counters)
    step_redis.StepRedisConsumer(pool, ["s", "t"], "g")


def handle_blocking(message: step_redis.sync.StepRedisMessage) -> None:
    assert_type(message.forward("{s}.t", {"data": 1}), str | None)
    message.ack()


def consume_blocking(pool: step_redis.sync.StepRedisPool) -> None:
    with step_redis.sync.StepRedisConsumer(pool, "s", "g", options=options) as consumer:
        consumer.run(handle_blocking, signals=True)
        for message in consumer:
            assert_type(message, step_redis.sync.StepRedisMessage)
            message.ack()
        assert_type(consumer.health(), step_redis.ConsumerHealth)


async def in_asyncio() -> None:
    async with step_redis.StepRedisPool(params=params, logger=logger) as pool:
        assert_type(pool, step_redis.StepRedisPool)
        client = redis.asyncio.Redis(connection_pool=pool.get_pool())
        await client.aclose()
        async with step_redis.StepRedisStream(pool, logger) as stream:
            assert_type(stream, step_redis.StepRedisStream)
            assert_type(await stream.create_input_stream("s", "g", ttl_seconds=3600), bool)
            assert_type(await stream.publish_message("s", {"data": "x"}, 1000), str)
            messages = await stream.receive_message("s", "g", "c", 5000, 1, ttl_seconds=3600)
            assert_type(messages, list[ReceivedMessage])
            for message in messages:
                assert_type(message["id"], str)
                assert_type(message["data"], dict[Any, Any])
                assert_type(message["headers"], dict[str, str])
                assert_type(message["delivery_count"], int)
                assert_type(message["error"], str | None)
                assert_type(await stream.acknowledge_message("s", "g", message["id"]), int)
            assert_type(await stream.receive_pending("s", "g", "c"), list[ReceivedMessage])
            assert_type(await stream.claim_messages("s", "g", "c", 1000), list[ReceivedMessage])
            assert_type(await stream.acknowledge_message("s", "g", ["1-1", "1-2"]), int)
            assert_type(await stream.redrive("s", "g", ids=["1-1"], limit=5), list[str])
            assert_type(await stream.publish_message("s", {}, dedup_id="k", delay_seconds=1.5), str)
            assert_type(await stream.publish_messages("s", ({"n": n} for n in range(3))), list[str])
            assert_type(await stream.publish_many({"s": [{"n": 1}]}), dict[str, list[str]])
            assert_type(await stream.publish_due("s"), int)
            assert_type(await stream.cancel_delayed("handle"), bool)
            delayed = await stream.delayed("s", limit=5)
            assert_type(delayed, step_redis.DelayedMessages)
            assert_type(delayed.messages[0].deliver_at, dt.datetime)
            trimmed = await stream.trim("s", step_redis.Retention(max_len=5))
            assert_type(trimmed, step_redis.Trimmed)
            assert_type(trimmed.held_back[0].consumer, str | None)
            assert_type(await stream.forget_group("s", "g"), bool)
            assert_type(await stream.ping(), bool)
            assert_type(await stream.set_ttl("s", 10), bool)
            stream.ping()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    step_redis.StepRedisStream(redis.asyncio.ConnectionPool(), default=str, foreign="bytes")
    step_redis.StepRedisStream(redis.ConnectionPool())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    step_redis.StepRedisPoolParams(host=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def in_threads() -> None:
    with step_redis.sync.StepRedisPool(params=params, logger=logger) as pool:
        assert_type(pool, step_redis.sync.StepRedisPool)
        redis.Redis(connection_pool=pool.get_pool())
        with step_redis.sync.StepRedisStream(pool, logger) as stream:
            assert_type(stream, step_redis.sync.StepRedisStream)
            assert_type(stream.create_input_stream("s", "g", ttl_seconds=3600), bool)
            assert_type(stream.publish_message("s", {"data": "x"}, 1000), str)
            assert_type(stream.receive_message("s", "g", "c", None), list[ReceivedMessage])
            assert_type(stream.receive_pending("s", "g", "c"), list[ReceivedMessage])
            assert_type(stream.claim_messages("s", "g", "c", 1000), list[ReceivedMessage])
            assert_type(stream.acknowledge_message("s", "g", "1-1"), int)
            assert_type(stream.publish_messages("s", [{"n": 1}], 1000), list[str])
            assert_type(stream.publish_many({"s": [{"n": 1}]}), dict[str, list[str]])
            assert_type(stream.delayed("s"), step_redis.DelayedMessages)
            retention = step_redis.Retention(max_age_seconds=5)
            assert_type(stream.trim("s", retention), step_redis.Trimmed)
            assert_type(stream.ping(), bool)
            assert_type(stream.set_ttl("s", 10), bool)
    step_redis.sync.StepRedisStream(pool, default=str, foreign="str").close()
    pool.close()
    step_redis.sync.StepRedisStream(redis.asyncio.ConnectionPool())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


asyncio.run(in_asyncio())
in_threads()
