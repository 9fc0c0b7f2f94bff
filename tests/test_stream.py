"""What each method of the stream does, as architecture and docstrings promise."""

import asyncio
from typing import Any

import pytest

from step_redis import (
    ConfigurationError,
    EncodeError,
    GroupNotFoundError,
    NotAStreamError,
    ServerError,
    StepRedisPoolParams,
    StreamNotFoundError,
)


async def test_the_example_of_the_architecture(stream, key):
    """Create, publish, receive, acknowledge: what comes out is what went in."""
    assert await stream.create_input_stream(key, "my_group", ttl_seconds=3600)
    message_id = await stream.publish_message(key, {"data": "Hello, Redis!"}, 1000)
    messages = await stream.receive_message(key, "my_group", "consumer1", 5000, 1, ttl_seconds=3600)
    assert messages == [
        {
            "id": message_id,
            "data": {"data": "Hello, Redis!"},
            "headers": {},
            "stream": key,
            "delivery_count": 1,
            "error": None,
        }
    ]
    assert await stream.acknowledge_message(key, "my_group", messages[0]["id"]) == 1
    assert await stream.acknowledge_message(key, "my_group", messages[0]["id"]) == 0


async def test_create_tells_whether_it_created_the_group(stream, key):
    """True for a new group, False for one that was there, whichever stream it is on."""
    assert await stream.create_input_stream(key, "g") is True
    assert await stream.create_input_stream(key, "g") is False
    assert await stream.create_input_stream(key, "other") is True


async def test_create_reads_what_was_published_earlier(stream, key):
    """A new group starts at the beginning of the stream."""
    await stream.publish_message(key, {"n": 1})
    await stream.create_input_stream(key, "g")
    [message] = await stream.receive_message(key, "g", "c")
    assert message["data"] == {"n": 1}


async def test_create_can_start_at_the_end(stream, key):
    """start_id="$" delivers only what comes later."""
    await stream.publish_message(key, {"n": 1})
    await stream.create_input_stream(key, "g", start_id="$")
    await stream.publish_message(key, {"n": 2})
    messages = await stream.receive_message(key, "g", "c", count=10)
    assert [message["data"]["n"] for message in messages] == [2]


async def test_create_sets_the_ttl_also_of_an_old_group(stream, key, redis):
    """The TTL is set whether or not the group is new, and left alone without one."""
    await stream.create_input_stream(key, "g")
    assert redis.ttl(key) == -1
    await stream.create_input_stream(key, "g", 100)
    assert 0 < redis.ttl(key) <= 100
    await stream.create_input_stream(key, "other")
    assert 0 < redis.ttl(key) <= 100


async def test_create_on_another_type(stream, key, redis):
    """A key that holds no stream is told as that, and left alone."""
    redis.set(key, "text")
    with pytest.raises(NotAStreamError, match="something else than a stream"):
        await stream.create_input_stream(key, "g", 100)
    assert redis.get(key) == b"text"


async def test_publish_trims_exactly_if_told(stream, key, redis):
    """max_len is about so many by default, and exactly so many with exact_trim."""
    for n in range(30):
        await stream.publish_message(key, {"n": n}, 5)
    assert redis.xlen(key) == 30, "so few entries share one node, which is trimmed as a whole"
    await stream.publish_message(key, {"n": 30}, 5, exact_trim=True)
    assert redis.xlen(key) == 5


async def test_publish_makes_the_stream_unless_told_not_to(stream, key, redis):
    """create=False refuses to make a new stream."""
    with pytest.raises(StreamNotFoundError) as caught:
        await stream.publish_message(key, {"n": 1}, create=False)
    assert caught.value.stream == key
    assert not caught.value.outcome_unknown
    assert not redis.exists(key)
    await stream.publish_message(key, {"n": 1})
    await stream.publish_message(key, {"n": 2}, create=False)
    assert redis.xlen(key) == 2


async def test_publish_sends_headers(stream, key):
    """Headers come back beside the message."""
    await stream.create_input_stream(key, "g")
    await stream.publish_message(key, {}, headers={"trace": "é"})
    [message] = await stream.receive_message(key, "g", "c")
    assert (message["data"], message["headers"]) == ({}, {"trace": "é"})


async def test_publish_refuses_before_sending(stream, key, redis):
    """What cannot be stored faithfully is refused, naming stream and key; nothing is written."""
    with pytest.raises(EncodeError, match=r"key 'when'.*stream") as caught:
        await stream.publish_message(key, {"when": {1, 2}})
    assert caught.value.stream == key
    assert not redis.exists(key)


async def test_default_converts_other_types(flavour, pool, key, redis):
    """default= makes storable what is not."""
    async with flavour.stream(pool, default=sorted) as stream:
        await stream.publish_message(key, {"tags": {"b", "a"}})
    [(_, fields)] = redis.xrange(key)
    assert fields[b"tags"] == b'["a","b"]'


async def test_receive_returns_up_to_count_in_order(stream, key):
    """The count bounds what one call returns; the order is the stream's."""
    await stream.create_input_stream(key, "g")
    ids = [await stream.publish_message(key, {"n": n}) for n in range(5)]
    first = await stream.receive_message(key, "g", "c", count=3)
    rest = await stream.receive_message(key, "g", "c", count=3)
    assert [message["id"] for message in first + rest] == ids
    assert len(first) == 3
    assert await stream.receive_message(key, "g", "c", count=3) == []


async def test_each_message_goes_to_one_consumer_of_a_group(stream, key):
    """Consumers of a group share its messages; another group gets them all again."""
    await stream.create_input_stream(key, "g")
    await stream.create_input_stream(key, "h")
    ids = {await stream.publish_message(key, {"n": n}) for n in range(4)}
    one = await stream.receive_message(key, "g", "one", count=2)
    two = await stream.receive_message(key, "g", "two", count=9)
    assert {message["id"] for message in one} | {message["id"] for message in two} == ids
    assert len(one) + len(two) == 4
    assert len(await stream.receive_message(key, "h", "one", count=9)) == 4


async def test_receive_without_group_or_stream(stream, key):
    """A missing stream and a missing group are one error, with what it is about."""
    with pytest.raises(GroupNotFoundError, match="create_input_stream") as caught:
        await stream.receive_message(key, "g", "c")
    error = caught.value
    assert (error.stream, error.group, error.consumer) == (key, "g", "c")
    await stream.publish_message(key, {})
    for call in (
        stream.receive_message(key, "g", "c", 100),
        stream.receive_pending(key, "g", "c"),
        stream.claim_messages(key, "g", "c", 0),
    ):
        with pytest.raises(GroupNotFoundError):
            await call


async def test_wrong_type_of_key(stream, key, redis):
    """Every call on a key that holds no stream says so."""
    redis.set(key, "text")
    for call in (
        stream.publish_message(key, {}),
        stream.receive_message(key, "g", "c"),
        stream.receive_pending(key, "g", "c"),
        stream.claim_messages(key, "g", "c", 0),
        stream.acknowledge_message(key, "g", "1-1"),
    ):
        with pytest.raises(NotAStreamError):
            await call


async def test_pending_comes_again_with_a_rising_count(flavour, pool, stream, key):
    """After a restart, a consumer gets its own unacknowledged messages, and no others."""
    await stream.create_input_stream(key, "g")
    ids = [await stream.publish_message(key, {"n": n}) for n in range(3)]
    await stream.receive_message(key, "g", "c", count=2)
    await stream.receive_message(key, "g", "other")
    async with flavour.stream(pool) as restarted:
        [first] = await restarted.receive_pending(key, "g", "c")
        assert (first["id"], first["data"], first["delivery_count"]) == (ids[0], {"n": 0}, 2)
        again = await restarted.receive_pending(key, "g", "c", count=10)
        assert [(message["id"], message["delivery_count"]) for message in again] == [
            (ids[0], 3),
            (ids[1], 2),
        ]
        await restarted.acknowledge_message(key, "g", ids[:2])
        assert await restarted.receive_pending(key, "g", "c") == []


async def test_pending_entries_that_were_deleted_are_cleared_away(stream, key, redis):
    """What was deleted while it was pending does not stand in the way of the rest."""
    await stream.create_input_stream(key, "g")
    ids = [await stream.publish_message(key, {"n": n}) for n in range(4)]
    await stream.receive_message(key, "g", "c", count=4)
    redis.xdel(key, *ids[:3])
    [message] = await stream.receive_pending(key, "g", "c", count=2)
    assert message["id"] == ids[3]
    assert redis.xpending(key, "g")["pending"] == 1


async def test_claim_takes_what_is_idle(stream, key, redis, until):
    """Only what was delivered long enough ago changes its consumer, counted once more."""
    await stream.create_input_stream(key, "g")
    ids = [await stream.publish_message(key, {"n": n}) for n in range(3)]
    await stream.receive_message(key, "g", "dead", count=2)
    assert await stream.claim_messages(key, "g", "c", 60_000, 10) == []
    await until(lambda: len(redis.xpending_range(key, "g", "-", "+", 9, idle=50)) == 2)
    await stream.receive_message(key, "g", "alive")
    claimed = await stream.claim_messages(key, "g", "c", 50, 10)
    assert [(m["id"], m["data"], m["delivery_count"]) for m in claimed] == [
        (ids[0], {"n": 0}, 2),
        (ids[1], {"n": 1}, 2),
    ]
    owners = {
        row["message_id"].decode(): row["consumer"]
        for row in redis.xpending_range(key, "g", "-", "+", 9)
    }
    assert owners == {ids[0]: b"c", ids[1]: b"c", ids[2]: b"alive"}


async def test_claim_clears_deleted_entries_away(stream, key, redis):
    """Entries deleted while pending are acknowledged, on every server alike."""
    await stream.create_input_stream(key, "g")
    ids = [await stream.publish_message(key, {"n": n}) for n in range(5)]
    await stream.receive_message(key, "g", "dead", count=5)
    redis.xdel(key, ids[0], ids[1], ids[3])
    claimed = await stream.claim_messages(key, "g", "c", 0, 2)
    assert [message["id"] for message in claimed] == [ids[2]]
    claimed += await stream.claim_messages(key, "g", "d", 0, 10)
    assert [message["id"] for message in claimed[1:]] == [ids[2], ids[4]]
    assert redis.xpending(key, "g")["pending"] == 2


async def test_claim_from_two_sides(stream, key):
    """Consumers that claim at once share what is idle; nobody gets what another took."""
    await stream.create_input_stream(key, "g")
    ids = {await stream.publish_message(key, {"n": n}) for n in range(40)}
    await stream.receive_message(key, "g", "dead", count=40)
    await asyncio.sleep(0.3)  # becoming idle takes time
    shares = await asyncio.gather(
        *(stream.claim_messages(key, "g", f"c{n}", 300, 40) for n in range(4))
    )
    taken = [message["id"] for share in shares for message in share]
    assert sorted(taken) == sorted(ids)


async def test_acknowledge_several(stream, key, redis):
    """One id or several; 0 for what is not pending or does not exist."""
    await stream.create_input_stream(key, "g")
    ids = [await stream.publish_message(key, {"n": n}) for n in range(3)]
    await stream.receive_message(key, "g", "c", count=3)
    assert await stream.acknowledge_message(key, "g", iter(ids)) == 3
    assert await stream.acknowledge_message(key, "g", []) == 0
    assert await stream.acknowledge_message(key, "nobody", ids[0]) == 0
    assert redis.xpending(key, "g")["pending"] == 0


async def test_acknowledge_what_is_no_id(stream, key):
    """Something else than an id is refused before anything is acknowledged."""
    await stream.create_input_stream(key, "g")
    good = await stream.publish_message(key, {})
    await stream.receive_message(key, "g", "c")
    with pytest.raises(ConfigurationError, match=r"message_id must be like .*'nonsense'"):
        await stream.acknowledge_message(key, "g", [good, "nonsense"])
    assert await stream.acknowledge_message(key, "g", good) == 1


async def test_ttl(stream, key, redis):
    """set_ttl says whether there is such a key."""
    assert await stream.set_ttl(key, 10) is False
    await stream.publish_message(key, {})
    assert await stream.set_ttl(key, 10) is True
    assert 0 < redis.ttl(key) <= 10


async def test_ping(stream):
    """A ping answers True."""
    assert await stream.ping() is True


async def test_entries_of_others(stream, key, redis):
    """What redis-py and redis-cli write comes back as str, as bytes where it is not UTF-8."""
    await stream.create_input_stream(key, "g")
    redis.xadd(key, {"name": "Zoë", "raw": b"\xff\x00", b"\xfe": "1"})
    redis.execute_command("XADD", key, "*", "n", "42")
    first, second = await stream.receive_message(key, "g", "c", count=2)
    assert first["data"] == {"name": "Zoë", "raw": b"\xff\x00", b"\xfe": "1"}
    assert second["data"] == {"n": "42"}
    assert first["error"] is second["error"] is None


async def test_entries_of_others_as_bytes(flavour, pool, key, redis):
    """foreign="bytes" leaves names and values as they are stored."""
    redis.xadd(key, {"name": "Zoë"})
    async with flavour.stream(pool, foreign="bytes") as stream:
        await stream.create_input_stream(key, "g")
        [message] = await stream.receive_message(key, "g", "c")
    assert message["data"] == {b"name": "Zoë".encode()}


async def test_damaged_entries_are_delivered_with_an_error(stream, key, redis):
    """An entry that cannot be decoded neither breaks the reader nor hides."""
    await stream.create_input_stream(key, "g")
    redis.xadd(key, {"n": "not JSON", "_step:t": '{"n":"j"}'})
    await stream.publish_message(key, {"n": 1})
    bad, good = await stream.receive_message(key, "g", "c", count=2)
    assert "field 'n' is not valid JSON" in bad["error"]
    assert bad["data"] == {b"n": b"not JSON", b"_step:t": b'{"n":"j"}'}
    assert (good["data"], good["error"]) == ({"n": 1}, None)
    assert await stream.acknowledge_message(key, "g", [bad["id"], good["id"]]) == 2


BAD_CALLS: list[tuple[str, tuple[Any, ...], str]] = [
    ("create_input_stream", ("", "g"), "stream_name"),
    ("create_input_stream", (b"s", "g"), "stream_name"),
    ("create_input_stream", ("s", None), "group_name"),
    ("create_input_stream", ("s", "g", 0), "ttl_seconds .* at least 1.*got 0"),
    ("create_input_stream", ("s", "g", True), "ttl_seconds .*got True"),
    ("publish_message", ("\ud800", {}), "stream_name is not valid Unicode"),
    ("publish_message", ("s", {}, 0), "max_len .*got 0"),
    ("publish_message", ("s", {}, 1.5), "max_len .*got 1.5"),
    ("receive_message", ("s", "g", ""), "consumer_name"),
    ("receive_message", ("s", "g", "c", -1), "wait_ms .* at least 0, or None to wait .*got -1"),
    ("receive_message", ("s", "g", "c", 0, 0), "count .*got 0"),
    ("receive_message", ("s", "g", "c", 0, 1, -5), "ttl_seconds .*got -5"),
    ("receive_pending", ("s", "g", "c", 0), "count"),
    ("claim_messages", ("s", "g", "c", -1), "min_idle_ms"),
    ("claim_messages", ("s", "g", "c", 0, None), "count .*got None"),
    ("acknowledge_message", ("s", "", "1-1"), "group_name"),
    ("acknowledge_message", ("s", "g", 17), "message_id .*got 17"),
    ("set_ttl", ("s", 0), "ttl_seconds"),
    ("set_ttl", (None, 1), "key"),
]


@pytest.mark.parametrize(("method", "args", "text"), BAD_CALLS)
async def test_bad_arguments(stream, method, args, text):
    """A bad argument is one clear error that names it; nothing is sent."""
    with pytest.raises(ConfigurationError, match=text) as caught:
        await getattr(stream, method)(*args)
    assert isinstance(caught.value, ValueError)
    assert not caught.value.outcome_unknown


async def test_start_id_that_is_none(stream, key, redis):
    """What the server refuses of the arguments is told in its words, and nothing is made."""
    with pytest.raises(ServerError, match="Invalid stream ID"):
        await stream.create_input_stream(key, "g", start_id="nonsense")
    assert not redis.exists(key)


async def test_pool_of_the_wrong_kind(flavour):
    """A pool of the other flavour, or none, is refused with a hint."""
    other = "redis" if flavour.name == "asyncio" else "redis.asyncio"
    module = pytest.importorskip(other)
    for wrong in (module.ConnectionPool(), None, StepRedisPoolParams()):
        with pytest.raises(ConfigurationError, match="same flavour"):
            flavour.stream(wrong)
    with pytest.raises(ConfigurationError, match="params must be StepRedisPoolParams; got dict"):
        flavour.pool({"host": "localhost"})
