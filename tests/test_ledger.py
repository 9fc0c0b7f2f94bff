"""The ledger: each number takes effect once, in order; decided by the server's script."""

import os
import subprocess
import sys

import attrs
import pytest
from redis import Redis
from redis.exceptions import ResponseError

import step_redis
from step_redis import ServerError, ledger, recent
from step_redis.ledger import LEDGER_SECONDS, Lane, Lanes, Numbered, Operation
from step_redis.publishing import batch, read_ids
from step_redis.script_calls import ScriptCall

LAST_ID = "18446744073709551615-18446744073709551615"


@attrs.frozen
class Producer:
    """A lane of a stream, whose operations are sent as the test says."""

    redis: Redis
    lane: Lane

    def numbered(self, *texts: bytes) -> Numbered:
        return Numbered(batch([[b"n", text] for text in texts], ()), self.lane)

    def send(self, numbered: Numbered):
        call: ScriptCall = numbered.call()
        code, *result = self.redis.execute_command(*call.by_text())
        return code.decode(), *result

    def written(self):
        return [fields[b"n"] for _, fields in self.redis.xrange(self.lane.stream)]


@pytest.fixture
def producer(redis, key):
    return Producer(redis, Lane.fresh(key))


def test_a_repeated_number_is_answered_from_memory(producer, redis):
    """Sent again, it has the same result and writes nothing, also if its entry is gone."""
    first = producer.numbered(b"1", b"2")
    result = producer.send(first)
    assert producer.send(first) == result
    redis.delete(producer.lane.stream)
    assert producer.send(first) == result
    assert producer.written() == []


def test_two_may_be_repeated(producer):
    """A ledger remembers the last two; an older one is refused, and nothing is written."""
    sent = [producer.numbered(b"%d" % number) for number in range(3)]
    results = [producer.send(numbered) for numbered in sent]
    assert [producer.send(numbered) for numbered in sent] == [("OLD",), *results[1:]]
    assert producer.written() == [b"0", b"1", b"2"]


def test_no_number_overtakes_another(producer):
    """What comes before its turn is refused, and can be sent again when it is its turn."""
    first, second = producer.numbered(b"1"), producer.numbered(b"2")
    assert producer.send(second) == ("GONE",)
    producer.send(first)
    third = producer.numbered(b"3")
    assert producer.send(third) == ("GAP",)
    assert producer.send(second)[0] == producer.send(third)[0] == "DONE"
    assert producer.written() == [b"1", b"2", b"3"]


def test_without_a_ledger_nobody_knows(producer, redis):
    """When the ledger is gone, a number that is not the first one is refused."""
    producer.send(producer.numbered(b"1"))
    second = producer.numbered(b"2")
    producer.send(second)
    redis.delete(producer.lane.ledger)
    assert producer.send(second) == ("GONE",)
    assert producer.written() == [b"1", b"2"]


def test_the_ledger_expires(producer, redis):
    """It is kept for a while after the last operation, and stays small."""
    for number in range(300):
        producer.send(producer.numbered(*[b"%d" % number] * (1 + number % 3)))
    seconds = redis.ttl(producer.lane.ledger)
    assert LEDGER_SECONDS - 60 < seconds <= LEDGER_SECONDS
    numbers = {slot: text.split()[0] for slot, text in redis.hgetall(producer.lane.ledger).items()}
    assert numbers == {b"1": b"299", b"0": b"300"}


def test_the_ledger_is_kept_as_long_as_its_producer_works(producer, redis, monkeypatch):
    """About once a minute an operation says anew how long to keep it."""
    at = 1000.0
    monkeypatch.setattr(ledger, "lease_now", lambda: at)

    def ttl_after(message):
        redis.expire(producer.lane.ledger, 500)
        producer.send(producer.numbered(message))
        return redis.ttl(producer.lane.ledger)

    assert ttl_after(b"1") > LEDGER_SECONDS - 60
    assert ttl_after(b"2") <= 500
    at += 59
    assert ttl_after(b"3") <= 500
    at += 2
    assert ttl_after(b"4") > LEDGER_SECONDS - 60
    assert ttl_after(b"5") <= 500
    at += 61
    # Whether the server was told is known only of what took effect.
    assert producer.numbered(b"6").withdraw()
    assert ttl_after(b"6") > LEDGER_SECONDS - 60


@pytest.mark.parametrize("count", [1, 2, 3, 499, 500, 501, 2000])
def test_all_ids_are_told(producer, redis, count):
    """The ids come in a short form, whether or not the clock moved amid the batch."""
    _, result = producer.send(producer.numbered(*[b"x"] * count))
    ids, refusal = read_ids(result)
    assert ids == [entry_id.decode() for entry_id, _ in redis.xrange(producer.lane.stream)]
    assert refusal is None
    assert len(result) < 200


def test_ids_whose_sequence_is_no_number_of_lua(producer, redis):
    """Sequences above 2^53, which Lua cannot tell apart, are told exactly."""
    ahead = int(redis.time()[0]) * 1000 + 10**9
    redis.xadd(producer.lane.stream, {"n": "0"}, id=f"{ahead}-9007199254740990")
    _, result = producer.send(producer.numbered(*[b"x"] * 6))
    assert read_ids(result)[0] == [f"{ahead}-{9007199254740991 + at}" for at in range(6)]


def test_a_refusal_amid_a_batch(producer, redis):
    """What was written before the server refused a message is told, and remembered."""
    milliseconds = LAST_ID.partition("-")[0]
    redis.xadd(producer.lane.stream, {"n": "0"}, id=f"{milliseconds}-18446744073709551612")
    numbered = producer.numbered(*[b"x"] * 6)
    code, result = producer.send(numbered)
    ids, refusal = read_ids(result)
    assert code == "DONE"
    assert ids == [f"{milliseconds}-1844674407370955161{digit}" for digit in (3, 4, 5)]
    assert isinstance(refusal, ResponseError)
    assert producer.send(numbered) == (code, result)
    with pytest.raises(ResponseError, match="exhausted"):
        producer.send(producer.numbered(b"x"))


def test_what_is_refused_at_once_takes_no_number(producer, redis):
    """An error of the server leaves the number free for another try."""
    redis.set(producer.lane.stream, "no stream")
    numbered = producer.numbered(b"1")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        producer.send(numbered)
    redis.delete(producer.lane.stream)
    assert producer.send(numbered)[0] == "DONE"
    assert producer.written() == [b"1"]


def test_a_key_that_is_no_ledger(producer, redis):
    """A key of another kind in the ledger's place is an error, and nothing is written."""
    redis.set(producer.lane.ledger, "no ledger")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        producer.send(producer.numbered(b"1"))
    assert producer.written() == []


def test_a_fork_has_lanes_of_its_own(params, key, redis):
    """A process that goes on with what it inherited publishes messages of its own all the same."""
    code = f"""
import os
from step_redis.sync import StepRedisPool, StepRedisPoolParams, StepRedisStream
with StepRedisPool(StepRedisPoolParams.from_env()) as pool, StepRedisStream(pool) as stream:
    stream.publish_message({key!r}, {{"n": 0}})
    for n in range(1, 4):
        if not os.fork():
            stream.publish_message({key!r}, {{"n": n}})
            os._exit(0)
        os.wait()
    stream.publish_message({key!r}, {{"n": 4}})
"""
    url = f"redis://{params.host}:{params.port}/{params.db}"
    command, environment = [sys.executable, "-c", code], os.environ | {"STEP_REDIS_URL": url}
    subprocess.run(command, env=environment, check=True, timeout=60)
    assert [fields[b"n"] for _, fields in redis.xrange(key)] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("denied", ["evalsha", "hset", "pexpire", "hmget"])
async def test_a_user_who_may_not_write_the_ledger(flavour, private_server, key, denied, caplog):
    """Whatever right is missing: it is published by plain XADD, once, with one warning."""
    server = private_server()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "+@all", f"-{denied}")
        params = step_redis.StepRedisPoolParams(
            host=server.host, port=server.port, username="few", password="pw"
        )
        async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
            ids = [await stream.publish_message(key, {"n": n}) for n in range(3)]
            ids += await stream.publish_messages(key, [{"n": n} for n in range(3, 6)])
            ids += await stream.publish_messages(f"{key}2", [{"n": n} for n in range(3)])
        written = [entry_id.decode() for entry_id, _ in client.xrange(key)]
        written += [entry_id.decode() for entry_id, _ in client.xrange(f"{key}2")]
    assert ids == written
    assert len([row for row in caplog.records if "plain XADD" in row.message]) == 2


# --- Lanes, without a server ------------------------------------------------------------------


def test_a_lane_is_used_by_one_at_a_time():
    """Taken lanes are all different; the one that was given back last is taken first."""
    lanes = Lanes()
    first, second = lanes.take("orders"), lanes.take("orders")
    assert first is not second
    lanes.give(second)
    lanes.give(first)
    assert lanes.take("orders") is first
    assert lanes.take("invoices") is not second
    assert lanes.take("orders") is second


def test_a_stale_lane_is_not_used_again():
    """Its ledger may expire before the next operation arrives."""
    lanes = Lanes()
    lane = lanes.take("orders")
    lane.used_at -= LEDGER_SECONDS
    lanes.give(lane)
    assert lanes.take("orders") is not lane


def test_streams_are_forgotten(monkeypatch):
    """What is kept of streams that nothing was published to lately goes; the others stay."""
    at = 1000.0
    monkeypatch.setattr(recent, "now", lambda: at)
    kept = recent.Recent(lambda _: [], seconds=60)
    for number in range(3000):
        at += 1
        kept.of(f"user:{number}").append(number)
        kept.of("orders").append(number)
    assert len(kept._values) == 62
    assert len(kept.of("orders")) == 3000
    assert kept.of("user:2999") == [2999]
    assert kept.of("user:0") == []


def test_a_number_is_withdrawn_only_if_nothing_is_under_way():
    """After an operation that certainly did nothing its lane goes on with the same number."""
    operation, lane = Operation("publish", ()), Lane.fresh("orders")
    first = Numbered(operation, lane)
    assert first.withdraw()
    second = Numbered(operation, lane)
    assert second.number == first.number == 1
    second.lost = ServerError("lost", outcome_unknown=True)
    assert not second.withdraw()
    third = Numbered(operation, lane)
    assert third.number == 2
    assert not second.withdraw()
