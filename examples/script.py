"""A blocking script: works through what is in a stream when it starts, and ends.

    python examples/script.py

It brings its own server; STEP_REDIS_URL=redis://... makes it use yours. The messages are iterated
over and settled one by one; whatever is not settled is delivered again the next time.
"""

import sys

from _server import server_url

from step_redis import StepRedisError
from step_redis.sync import (
    StepRedisConsumer,
    StepRedisPool,
    StepRedisPoolParams,
    StepRedisStream,
)


def work(url: str) -> int:
    """Publish some numbers, then add them up; return the sum."""
    total = 0
    with StepRedisPool(StepRedisPoolParams.from_url(url)) as pool:
        with StepRedisStream(pool) as stream:
            for number in range(1, 101):
                last = stream.publish_message("numbers", {"number": number})
        with StepRedisConsumer(pool, "numbers", "adding") as consumer:
            for message in consumer:
                if message.error is not None:
                    message.reject(message.error)
                else:
                    total += message.data["number"]
                    message.ack()
                if message.id == last:
                    break
    return total


def main() -> None:
    """Run it on a server."""
    with server_url() as url:
        print(f"the sum is {work(url)}")


if __name__ == "__main__":
    try:
        main()
    except StepRedisError as error:
        sys.exit(f"{type(error).__name__}: {error}")
