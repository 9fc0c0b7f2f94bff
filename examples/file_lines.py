"""Send the lines of a file to a second process, through a stream, and compare what arrived.

    python examples/file_lines.py FILE

This process publishes with asyncio. It starts a second one that consumes with blocking code:
both flavours speak to each other. The publisher waits while the consumer has WINDOW lines left
to acknowledge, so that a file of any size passes through little memory.

It brings its own server; STEP_REDIS_URL=redis://... makes it use yours.
"""

import argparse
import asyncio
import hashlib
import logging
import os
import sys
import uuid
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from _server import server_url

import step_redis
import step_redis.sync
from step_redis import StepRedisError, StepRedisPoolParams

try:
    from tqdm import tqdm
except ImportError:
    sys.exit("file_lines.py shows its progress with tqdm: pip install tqdm")

GROUP = "readers"
TTL_SECONDS = 600
BATCH = 100
WINDOW = 1000
LONGEST_PIECE = 64 * 1024
LONGEST_SILENCE_MS = 60_000
CONSUMER = (sys.executable, __file__, "--consume")


class Tally:
    """What one side saw of the file."""

    def __init__(self) -> None:
        self.lines = 0
        self._in_line = False
        self._sha256 = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        """Count a line, or a piece of one that is too long for one message."""
        self.lines += not self._in_line
        self._in_line = not piece.endswith(b"\n")
        self._sha256.update(piece)

    def __str__(self) -> str:
        return f"lines={self.lines} sha256={self._sha256.hexdigest()}"


def consume(params: StepRedisPoolParams, stream_name: str) -> None:
    """Consume the stream to its end; print how many messages are acknowledged, then the tally."""
    tally, acknowledged, ended = Tally(), 0, False
    with (
        step_redis.sync.StepRedisPool(params) as pool,
        step_redis.sync.StepRedisStream(pool) as stream,
    ):
        while not ended:
            messages = stream.receive_message(
                stream_name, GROUP, "reader", LONGEST_SILENCE_MS, BATCH, ttl_seconds=TTL_SECONDS
            )
            if not messages:
                sys.exit(f"nothing came for {LONGEST_SILENCE_MS // 1000} s")
            for message in messages:
                if "end" in message["headers"]:
                    ended = True
                else:
                    tally.add(message["data"]["line"])
            ids = [message["id"] for message in messages]
            acknowledged += stream.acknowledge_message(stream_name, GROUP, ids)
            print("acknowledged", acknowledged, flush=True)
    print("received", tally)


async def publish(
    file: BinaryIO,
    stream: step_redis.StepRedisStream,
    stream_name: str,
    reports: asyncio.StreamReader,
    progress: "tqdm[None]",
) -> Tally:
    """Publish the lines of the file, no faster than the consumer acknowledges them."""
    tally, published, acknowledged = Tally(), 0, 0
    while piece := file.readline(LONGEST_PIECE):
        while published - acknowledged >= WINDOW:
            acknowledged = int(await next_report(reports, "acknowledged"))
        # Trimming removes the oldest, whether read or not; all beyond WINDOW are acknowledged.
        await stream.publish_message(stream_name, {"line": piece}, max_len=WINDOW)
        published += 1
        tally.add(piece)
        progress.update(len(piece))
    await stream.publish_message(stream_name, {}, headers={"end": str(tally.lines)})
    return tally


async def next_report(reports: asyncio.StreamReader, kind: str) -> str:
    """Return the consumer's next report of this kind; exit if it ended before."""
    async for line in reports:
        found, _, text = line.decode().strip().partition(" ")
        if found == kind:
            return text
    sys.exit("the consumer ended before it had everything")


async def send(file: BinaryIO, url: str, consumer: Sequence[str]) -> bool:
    """Publish to a consumer in a process of its own; tell whether both saw the same."""
    stream_name = f"file_lines:{uuid.uuid4().hex}"
    async with (
        step_redis.StepRedisPool(StepRedisPoolParams.from_url(url)) as pool,
        step_redis.StepRedisStream(pool) as stream,
    ):
        await stream.create_input_stream(stream_name, GROUP, TTL_SECONDS)
        process = await asyncio.create_subprocess_exec(
            *consumer, stream_name, stdout=PIPE, env=os.environ | {"STEP_REDIS_URL": url}
        )
        assert process.stdout is not None
        size = os.fstat(file.fileno()).st_size
        try:
            with tqdm(total=size or None, unit="B", unit_scale=True) as progress:
                tally = await publish(file, stream, stream_name, process.stdout, progress)
            received = await next_report(process.stdout, "received")
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await stream.set_ttl(stream_name, 1)
    print(f"published {tally}")
    print(f"received  {received}")
    return status == 0 and received == str(tally)


def main(arguments: list[str] | None = None, consumer: Sequence[str] = CONSUMER) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Send the lines of a file through a stream.")
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?")
    parser.add_argument("--consume", metavar="STREAM", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    # What goes wrong is printed at the end, once.
    logging.getLogger("step_redis").addHandler(logging.NullHandler())
    try:
        if options.consume is not None:
            url = os.environ["STEP_REDIS_URL"]
            consume(StepRedisPoolParams.from_url(url), options.consume)
        elif options.file is None:
            parser.error("FILE is missing")
        else:
            with options.file.open("rb") as file, server_url() as url:
                if not asyncio.run(send(file, url, consumer)):
                    sys.exit("The consumer did not receive what was published.")
    except StepRedisError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except OSError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
