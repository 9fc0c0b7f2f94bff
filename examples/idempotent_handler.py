"""A handler that may meet a message twice: its effect and the message's id are one transaction.

    python examples/idempotent_handler.py

A message is delivered again if its process dies between the handler's effect and the
acknowledgement. Here that is forced: the handler fails right after it has booked the payment. The
payment is booked once all the same, since the database knows the message's id. That the handler
failed is logged.

It brings its own server; STEP_REDIS_URL=redis://... makes it use yours.
"""

import sqlite3
import sys

from _server import server_url

from step_redis import ConsumerOptions, RetryPolicy, StepRedisError
from step_redis.sync import (
    StepRedisConsumer,
    StepRedisMessage,
    StepRedisPool,
    StepRedisPoolParams,
    StepRedisStream,
)


class Ledger:
    """Payments in a database, each booked once."""

    def __init__(self) -> None:
        # Handlers run in threads of the consumer, one at a time here.
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute("CREATE TABLE payments (message_id TEXT PRIMARY KEY, cents INT)")

    def book(self, message_id: str, cents: int) -> bool:
        """Book a payment; return False if this message had booked it before."""
        with self._database:
            booked = self._database.execute(
                "INSERT INTO payments VALUES (?, ?) ON CONFLICT DO NOTHING", (message_id, cents)
            )
        return booked.rowcount == 1

    def total(self) -> int:
        """Return the sum of all payments."""
        [(cents,)] = self._database.execute("SELECT sum(cents) FROM payments")
        return int(cents)


def work(url: str) -> int:
    """Book a payment although its handler is interrupted the first time; return the total."""
    ledger = Ledger()
    options = ConsumerOptions(retry=RetryPolicy(delays=0.1))
    with StepRedisPool(StepRedisPoolParams.from_url(url)) as pool:
        with StepRedisStream(pool) as stream:
            stream.publish_message("payments", {"cents": 1250})
        with StepRedisConsumer(pool, "payments", "booking", options=options) as consumer:

            def handle(message: StepRedisMessage) -> None:
                is_new = ledger.book(message.id, message.data["cents"])
                print(f"delivery {message.delivery_count}: {'booked' if is_new else 'known'}")
                if message.delivery_count == 1:
                    raise ConnectionError("interrupted after the effect")
                consumer.stop()

            consumer.run(handle)
    return ledger.total()


def main() -> None:
    """Run it on a server."""
    with server_url() as url:
        print(f"the total is {work(url)}")


if __name__ == "__main__":
    try:
        main()
    except StepRedisError as error:
        sys.exit(f"{type(error).__name__}: {error}")
