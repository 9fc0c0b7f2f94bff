"""Run as a program: a consumer of the group "g" that tests kill, stop and signal.

`consumer_program.py FLAVOUR URL STREAM ACTION OPTIONS` - OPTIONS is JSON for `ConsumerOptions`.
Each call of the handler appends "id count" to the list STREAM:log, and its end "id WHAT" to the
list STREAM:done. ACTION is what the handler does: `return`, `hang`, `die`, `slow:SECONDS` (sleeps,
then returns) or `ack:SECONDS` (sleeps, then acknowledges, and notes the error if that raises).
SIGINT and SIGTERM stop the consumer; then it prints "stopped".
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time

import redis
import redis.asyncio

import step_redis
import step_redis.sync
from step_redis import ConsumerOptions, StepRedisError, StepRedisPoolParams

FLAVOUR, URL, STREAM, ACTION, OPTIONS = sys.argv[1:]
WHAT, _, SECONDS = ACTION.partition(":")
PARAMS = StepRedisPoolParams.from_url(URL)
EVER = 10_000.0


def pause() -> float:
    return EVER if WHAT == "hang" else float(SECONDS or 0)


def die() -> None:
    if WHAT == "die":
        os.kill(os.getpid(), signal.SIGKILL)


async def in_asyncio(options: ConsumerOptions) -> None:
    log = redis.asyncio.Redis.from_url(URL)

    async def handle(message: step_redis.StepRedisMessage) -> None:
        await log.rpush(f"{STREAM}:log", f"{message.id} {message.delivery_count}")
        die()
        await asyncio.sleep(pause())
        end = "returned"
        if WHAT == "ack":
            try:
                await message.ack()
                end = "acknowledged"
            except StepRedisError as error:
                end = type(error).__name__
        await log.rpush(f"{STREAM}:done", f"{message.id} {end}")

    async with (
        step_redis.StepRedisPool(PARAMS) as pool,
        step_redis.StepRedisConsumer(pool, STREAM, "g", options=options) as consumer,
    ):
        await consumer.run(handle, signals=True)
    await log.aclose()


def in_threads(options: ConsumerOptions) -> None:
    log = redis.Redis.from_url(URL)

    def handle(message: step_redis.sync.StepRedisMessage) -> None:
        log.rpush(f"{STREAM}:log", f"{message.id} {message.delivery_count}")
        die()
        time.sleep(pause())
        end = "returned"
        if WHAT == "ack":
            try:
                message.ack()
                end = "acknowledged"
            except StepRedisError as error:
                end = type(error).__name__
        log.rpush(f"{STREAM}:done", f"{message.id} {end}")

    with (
        step_redis.sync.StepRedisPool(PARAMS) as pool,
        step_redis.sync.StepRedisConsumer(pool, STREAM, "g", options=options) as consumer,
    ):
        consumer.run(handle, signals=True)
    log.close()


logging.basicConfig(level=logging.INFO)
chosen = ConsumerOptions(**json.loads(OPTIONS))
if FLAVOUR == "asyncio":
    asyncio.run(in_asyncio(chosen))
else:
    in_threads(chosen)
print("stopped")  # noqa: T201 - this is its result
