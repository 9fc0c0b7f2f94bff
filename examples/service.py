"""A service on asyncio: handles orders until Ctrl-C or SIGTERM, and answers a health probe.

    STEP_REDIS_URL=redis://localhost python examples/service.py

Start it several times: the processes share the orders. Kill one of them: the others take over what
it was handling. `--demo 20` publishes 20 orders first and ends when they are done, on a server that
it brings unless STEP_REDIS_URL names yours.
"""

import argparse
import asyncio
import logging

from _server import server_url

from step_redis import (
    ConsumerOptions,
    Exponential,
    RetryPolicy,
    StepRedisConsumer,
    StepRedisMessage,
    StepRedisPool,
    StepRedisPoolParams,
    StepRedisStream,
)

logger = logging.getLogger("service")

OPTIONS = ConsumerOptions(
    concurrency=16,
    lease_seconds=15,
    handler_timeout_seconds=60,
    retry=RetryPolicy(
        max_deliveries=5,
        delays=Exponential(first_seconds=0.2, limit_seconds=60),
        # No retry mends an order that makes no sense.
        non_retryable=(KeyError, TypeError),
    ),
)


class Payments:
    """What the orders are handed to: a flaky service."""

    def __init__(self) -> None:
        self.paid: set[int] = set()

    async def pay(self, number: int, delivery: int) -> None:
        """Pay an order; every third fails when it is tried first."""
        await asyncio.sleep(0.01)
        if number % 3 == 0 and delivery == 1:
            raise ConnectionError("the payment service is away")
        self.paid.add(number)


async def probe(consumer: StepRedisConsumer) -> None:
    """Log how it is doing; a real service would answer an HTTP request with it."""
    while True:
        await asyncio.sleep(5)
        health = await consumer.health()
        logger.info("stuck=%s handling=%d %s", health.stuck, health.handling, health.streams)


async def serve(demo: int) -> None:
    """Handle orders until the consumer is stopped."""
    payments = Payments()
    with server_url() as url:
        async with StepRedisPool(StepRedisPoolParams.from_url(url)) as pool:
            if demo:
                async with StepRedisStream(pool) as stream:
                    for number in range(demo):
                        await stream.publish_message("orders", {"number": number})
            async with StepRedisConsumer(pool, "orders", "billing", options=OPTIONS) as consumer:

                async def handle(message: StepRedisMessage) -> None:
                    await payments.pay(message.data["number"], message.delivery_count)
                    if demo and len(payments.paid) == demo:
                        consumer.stop()

                probing = asyncio.create_task(probe(consumer))
                try:
                    await consumer.run(handle, signals=True)
                finally:
                    probing.cancel()
    print(f"paid {len(payments.paid)} orders")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Handle orders.")
    parser.add_argument("--demo", type=int, default=0, metavar="N", help="publish N orders first")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    asyncio.run(serve(parser.parse_args().demo))


if __name__ == "__main__":
    main()
