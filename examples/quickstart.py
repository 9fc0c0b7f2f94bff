"""Publish a message, receive it, acknowledge it: with asyncio, then without.

    python examples/quickstart.py

It brings its own server; STEP_REDIS_URL=redis://... makes it use yours.
"""

import asyncio
import logging
import sys

from _server import server_url

import step_redis
import step_redis.sync
from step_redis import StepRedisError, StepRedisPoolParams


async def with_asyncio(params: StepRedisPoolParams) -> None:
    """Do it with `step_redis`."""
    async with (
        step_redis.StepRedisPool(params) as pool,
        step_redis.StepRedisStream(pool) as stream,
    ):
        await stream.create_input_stream("my_stream", "my_group", ttl_seconds=3600)

        published = await stream.publish_message("my_stream", {"data": "Hello, Redis!"}, 1000)
        print(f"asyncio:  published {published}")

        messages = await stream.receive_message(
            "my_stream", "my_group", "consumer1", 5000, 1, ttl_seconds=3600
        )
        for message in messages:
            print(f"asyncio:  received {message['data']}")
            done = await stream.acknowledge_message("my_stream", "my_group", message["id"])
            print(f"asyncio:  acknowledged {done}")


def without_asyncio(params: StepRedisPoolParams) -> None:
    """Do the same with `step_redis.sync`: the same calls without async and await."""
    with (
        step_redis.sync.StepRedisPool(params) as pool,
        step_redis.sync.StepRedisStream(pool) as stream,
    ):
        stream.create_input_stream("my_stream", "my_group", ttl_seconds=3600)

        published = stream.publish_message("my_stream", {"data": "Hello, Redis!"}, 1000)
        print(f"blocking: published {published}")

        messages = stream.receive_message(
            "my_stream", "my_group", "consumer1", 5000, 1, ttl_seconds=3600
        )
        for message in messages:
            print(f"blocking: received {message['data']}")
            done = stream.acknowledge_message("my_stream", "my_group", message["id"])
            print(f"blocking: acknowledged {done}")


def main() -> None:
    """Run both, one after the other."""
    with server_url() as url:
        params = StepRedisPoolParams.from_url(url)
        asyncio.run(with_asyncio(params))
        without_asyncio(params)


if __name__ == "__main__":
    # What goes wrong is printed below, once.
    logging.getLogger("step_redis").addHandler(logging.NullHandler())
    try:
        main()
    except StepRedisError as error:
        sys.exit(f"{type(error).__name__}: {error}")
