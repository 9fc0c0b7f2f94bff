"""A process beside the consumers, which publishes or trims. It runs until SIGTERM.

`producer.py SLOT PORT DIRECT_PORT SEED EPOCH PLANT NAME JOURNAL`
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import attrs
from redis import Redis

if __name__ == "__main__":
    # Its modules are found from the folder of the tests.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import step_redis
import step_redis.sync
from step_redis import Retention, StepRedisError, StepRedisPoolParams, publishing, retention
from torture import evidence, process
from torture.calls import Call, Chooser
from torture.journal import Journal
from torture.settings import (
    HASTY_SECONDS,
    KEPT,
    KEPT_BY_PRODUCERS,
    PATIENT_SECONDS,
    PRODUCERS,
    STREAMS,
)

_LOOK_SECONDS = 0.01
_THREADS = 8

# So small that batches take several calls, and streams several pages.
_CHUNK_MESSAGES = 5
_PAGE_ENTRIES = 50

_TRIM_SECONDS = 0.2
_TRIMMED_TO = (
    Retention(max_len=KEPT),
    Retention(max_age_seconds=2),
    Retention(max_len=2 * KEPT, max_age_seconds=1),
)


@attrs.frozen
class _Setup:
    params: StepRedisPoolParams
    direct: StepRedisPoolParams
    logger: logging.Logger
    is_over: Callable[[], bool]

    def pool(self, *, is_hasty: bool) -> tuple[StepRedisPoolParams, logging.Logger]:
        """Return the arguments of a pool; who is hasty does not wait long for answers either."""
        seconds = HASTY_SECONDS if is_hasty else self.params.socket_timeout
        return attrs.evolve(self.params, socket_timeout=seconds), self.logger

    def stream(self, *, is_hasty: bool) -> dict[str, Any]:
        """Return the options of a stream."""
        seconds = HASTY_SECONDS if is_hasty else PATIENT_SECONDS
        kept = Retention(max_len=KEPT_BY_PRODUCERS)
        return {"logger": self.logger, "retry_seconds": seconds, "retention": kept}

    def write_raw(self, stream: str, fields: dict[str, Any]) -> str:
        """Write an entry as another program might."""
        options = {"socket_timeout": 2, "socket_connect_timeout": 1, "retry": None}
        with Redis(self.direct.host, self.direct.port, **options) as client:
            return client.xadd(stream, fields).decode()


def main(
    slot: str, port: str, direct_port: str, seed: str, epoch: str, plant: str, name: str, path: str
) -> None:
    """Publish or trim as the slot says, and note it."""
    journal = process.begin(path, plant)
    publishing.CHUNK_MESSAGES, retention.PAGE_ENTRIES = _CHUNK_MESSAGES, _PAGE_ENTRIES
    evidence.observe_asking(journal)
    logger = logging.getLogger("torture.producer")
    params = StepRedisPoolParams(
        host="127.0.0.1", port=int(port), socket_timeout=2, socket_connect_timeout=1
    )
    direct = attrs.evolve(params, port=int(direct_port))
    setup = _Setup(params, direct, logger, process.listen())
    chooser = Chooser(name, seed, float(epoch), journal)
    journal.write("up")
    match PRODUCERS[int(slot)]:
        case "asyncio":
            asyncio.run(_publish(setup, chooser))
        case "threads":
            _publish_blocking(setup, chooser)
        case _:
            _trim(setup, journal, Random(f"{seed} {name}"))
    journal.write("down")


async def _publish(setup: _Setup, chooser: Chooser) -> None:
    under_way: set[asyncio.Task[None]] = set()
    async with (
        step_redis.StepRedisPool(*setup.pool(is_hasty=False)) as pool,
        step_redis.StepRedisPool(*setup.pool(is_hasty=True)) as hasty_pool,
        step_redis.StepRedisStream(pool, **setup.stream(is_hasty=False)) as patient,
        step_redis.StepRedisStream(hasty_pool, **setup.stream(is_hasty=True)) as hasty,
        asyncio.TaskGroup() as tasks,
    ):
        while not setup.is_over():
            for call in chooser.calls(len(under_way)):
                stream = hasty if call.is_hasty else patient
                task = tasks.create_task(_carry_out(setup, stream, chooser, call))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.sleep(_LOOK_SECONDS)


async def _carry_out(setup: _Setup, stream: Any, chooser: Chooser, call: Call) -> None:
    chooser.begins(call)
    try:
        if call.way == "raw":
            result = await asyncio.to_thread(setup.write_raw, *call.arguments)
        else:
            result = await getattr(stream, call.method)(*call.arguments, **call.options)
    except Exception as error:  # noqa: BLE001 - it is noted
        chooser.raised(call, error)
    else:
        chooser.returned(call, result)


def _publish_blocking(setup: _Setup, chooser: Chooser) -> None:
    under_way: set[Future[None]] = set()
    with (
        step_redis.sync.StepRedisPool(*setup.pool(is_hasty=False)) as pool,
        step_redis.sync.StepRedisPool(*setup.pool(is_hasty=True)) as hasty_pool,
        step_redis.sync.StepRedisStream(pool, **setup.stream(is_hasty=False)) as patient,
        step_redis.sync.StepRedisStream(hasty_pool, **setup.stream(is_hasty=True)) as hasty,
        ThreadPoolExecutor(_THREADS) as threads,
    ):
        carry_out = partial(threads.submit, _carry_out_blocking, setup)
        while under_way or not setup.is_over():
            if not setup.is_over():
                for call in chooser.calls(len(under_way)):
                    under_way.add(carry_out(hasty if call.is_hasty else patient, chooser, call))
            for done in [one for one in under_way if one.done()]:
                under_way.remove(done)
                done.result()
            time.sleep(_LOOK_SECONDS)


def _carry_out_blocking(setup: _Setup, stream: Any, chooser: Chooser, call: Call) -> None:
    chooser.begins(call)
    try:
        if call.way == "raw":
            result = setup.write_raw(*call.arguments)
        else:
            result = getattr(stream, call.method)(*call.arguments, **call.options)
    except Exception as error:  # noqa: BLE001 - it is noted
        chooser.raised(call, error)
    else:
        chooser.returned(call, result)


def _trim(setup: _Setup, journal: Journal, rng: Random) -> None:
    """Trim, and publish what is due, as a job beside the consumers might."""
    with step_redis.sync.StepRedisPool(setup.params, setup.logger) as pool:
        stream = step_redis.sync.StepRedisStream(pool, setup.logger)
        while not setup.is_over():
            time.sleep(rng.uniform(0, 2 * _TRIM_SECONDS))
            name = rng.choice(STREAMS)
            try:
                trimmed = stream.trim(name, rng.choice(_TRIMMED_TO))
                moved = stream.publish_due(name)
            except StepRedisError as error:
                journal.write("not trimmed", why=type(error).__name__)
            else:
                held_back = [one.group for one in trimmed.held_back]
                journal.write("trimmed", removed=trimmed.removed, held_back=held_back, moved=moved)


if __name__ == "__main__":
    main(*sys.argv[1:])
