"""A consumer process: `worker.py SLOT PORT PLANT NAME JOURNAL`. It runs until SIGTERM."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import attrs

if __name__ == "__main__":
    # Its modules are found from the folder of the tests.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import step_redis
import step_redis.sync
from step_redis import ConsumerOptions, RetryPolicy, StepRedisPoolParams
from step_redis._async import membership as asyncio_membership
from step_redis._sync import membership as threads_membership
from torture import behaviour, evidence, process
from torture.journal import Journal
from torture.settings import (
    GRACE_SECONDS,
    GROUP,
    LEASE_SECONDS,
    MAX_DELIVERIES,
    RETRY_DELAYS,
    SLOTS,
    STREAMS,
    Slot,
)


def main(slot_number: str, port: str, plant: str, name: str, path: str) -> None:
    """Consume as the slot says, and note it."""
    journal, slot = process.begin(path, plant), SLOTS[int(slot_number)]
    options = _options(slot, name)
    params = StepRedisPoolParams(
        host="127.0.0.1", port=int(port), socket_timeout=slot.socket_timeout
    )
    journal.write("up")
    if slot.flavour == "asyncio":
        evidence.observe(journal, asyncio_membership.Membership)
        asyncio.run(_consume(params, options, journal, plant))
    else:
        evidence.observe(journal, threads_membership.Membership)
        _consume_blocking(params, options, journal, plant)
    journal.write("down")


async def _consume(
    params: StepRedisPoolParams, options: ConsumerOptions, journal: Journal, plant: str
) -> None:
    async def handle(message: Any) -> None:
        steps = behaviour.handle(message, journal, acks_first=plant == "early-ack")
        await behaviour.follow(steps)

    async with step_redis.StepRedisPool(params) as pool:
        consumer = step_redis.StepRedisConsumer(pool, STREAMS, GROUP, options=options)
        await consumer.run(handle, signals=True)
        health = await consumer.health()
        journal.write("counters", **attrs.asdict(health.counters))


def _consume_blocking(
    params: StepRedisPoolParams, options: ConsumerOptions, journal: Journal, plant: str
) -> None:
    def handle(message: Any) -> None:
        steps = behaviour.handle(message, journal, acks_first=plant == "early-ack")
        behaviour.follow_blocking(steps)

    with step_redis.sync.StepRedisPool(params) as pool:
        consumer = step_redis.sync.StepRedisConsumer(pool, STREAMS, GROUP, options=options)
        consumer.run(handle, signals=True)
        health = consumer.health()
        journal.write("counters", **attrs.asdict(health.counters))


def _options(slot: Slot, name: str) -> ConsumerOptions:
    return ConsumerOptions(
        name=name,
        concurrency=slot.concurrency,
        prefetch=slot.prefetch,
        lease_seconds=LEASE_SECONDS,
        handler_timeout_seconds=slot.handler_timeout_seconds,
        retry=RetryPolicy(
            max_deliveries=MAX_DELIVERIES,
            delays=RETRY_DELAYS,
            non_retryable=(behaviour.FatalError,),
        ),
        on_group_lost="fail",
        grace_seconds=GRACE_SECONDS,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
