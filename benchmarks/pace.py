"""A process that publishes at a steady pace, the time of sending in each message."""

import sys
import time

from redis import Redis

SENT = "sent"


def main(port: int, stream: str, count: int, a_second: int) -> None:
    """Publish so many messages; sending late does not make the next ones later."""
    with Redis(host="127.0.0.1", port=port) as client:
        client.ping()
        begun = time.perf_counter()
        for number in range(count):
            wait = begun + number / a_second - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            client.xadd(stream, {"payload": "x" * 100, SENT: str(time.time_ns())})


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
