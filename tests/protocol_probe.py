"""Run as a program: one round trip in both flavours; prints all that came back.

`protocol_probe.py URL KEY PROTOCOL with|without` - the last word is about hiredis.
"""

import asyncio
import sys

url, key, protocol, hiredis = sys.argv[1:]
if hiredis == "without":
    # As if it were not installed: redis-py falls back on its own parsers.
    sys.modules["hiredis"] = None  # type: ignore[assignment]

import redis.utils  # noqa: E402 - hiredis is hidden from it

from flavours import Flavour  # noqa: E402
from step_redis import StepRedisError, StepRedisPoolParams  # noqa: E402

assert redis.utils.HIREDIS_AVAILABLE is (hiredis == "with")
PARAMS = StepRedisPoolParams.from_url(url, protocol=int(protocol))
MESSAGE = {"text": "Zoë", "n": 2**70, "raw": b"\xff", "list": [1, {"a": None}], "flag": True}


def show(value: object, name: str) -> None:
    """Ids differ from run to run; everything else has to be the same."""
    if isinstance(value, list):
        value = [{**message, "id": "*"} for message in value]
    text = f"{type(value).__name__}: {value}" if isinstance(value, Exception) else repr(value)
    print(text.replace(name, "*"))  # noqa: T201 - this is its result


async def round_trip(flavour: Flavour, name: str) -> None:
    async with flavour.pool(PARAMS) as pool, flavour.stream(pool) as stream:
        show(await stream.create_input_stream(name, "g", 100), name)
        show(await stream.create_input_stream(name, "g"), name)
        message_id = await stream.publish_message(name, MESSAGE, headers={"h": "1"})
        await stream.publish_message(name, {}, 10, exact_trim=True)
        for call in (
            stream.receive_message(name, "g", "c", 1000, 10, 100),
            stream.receive_message(name, "g", "c", 20),
            stream.receive_message(name, "g", "c"),
            stream.receive_pending(name, "g", "c", 10),
            stream.claim_messages(name, "g", "d", 0, 10),
            stream.acknowledge_message(name, "g", message_id),
            stream.set_ttl(name, 10),
            stream.receive_message(name, "none", "c"),
            stream.publish_message(name + "?", {}, create=False),
            stream.acknowledge_message(name, "g", ["1-1"]),
            stream.create_input_stream(name, "h", start_id="x"),
        ):
            try:
                show(await call, name)
            except StepRedisError as error:
                show(error, name)


for flavour in map(Flavour, ("asyncio", "threads")):
    print(f"--- {flavour.name}")  # noqa: T201 - as above
    asyncio.run(round_trip(flavour, f"{key}:{flavour.name}"))
    flavour.close()
