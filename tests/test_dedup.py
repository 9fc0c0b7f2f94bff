"""Deduplication by the user's key: the same message is written once, another one is a conflict."""

import asyncio
import datetime as dt
import itertools
import logging
import subprocess
import sys
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from step_redis import (
    ConfigurationError,
    DuplicateConflict,
    EncodeError,
    NotAStreamError,
    PermissionDeniedError,
    StepRedisError,
    StepRedisPoolParams,
    StreamNotFoundError,
    sync,
)
from step_redis.codec import Codec
from step_redis.dedup import dedup_key, fingerprint

DAY_MS = 86_400_000


def record_of(key, dedup_id):
    return f"{{{key}}}.dedup:{dedup_id}"


def records(redis, key):
    return list(redis.scan_iter(match=f"*{key}*.dedup:*"))


# --- Again and differently ------------------------------------------------------------------


async def test_again_under_the_same_key(stream, key, redis):
    """The second time nothing is written, and the first id comes back."""
    first = await stream.publish_message(key, {"n": 1}, dedup_id="order-17")
    assert await stream.publish_message(key, {"n": 1}, dedup_id="order-17") == first
    assert [entry_id.decode() for entry_id, _ in redis.xrange(key)] == [first]


async def test_it_is_read_like_any_other(stream, key):
    """What was published under a key is an entry like those without."""
    await stream.create_input_stream(key, "g")
    first = await stream.publish_message(key, {"n": 1}, dedup_id="order-17", headers={"h": "x"})
    [message] = await stream.receive_message(key, "g", "c")
    assert (message["id"], message["data"], message["headers"]) == (first, {"n": 1}, {"h": "x"})


async def test_another_message_under_the_same_key(stream, key, redis, caplog):
    """It is refused with the id of the first one, written nowhere and shown nowhere."""
    first = await stream.publish_message(key, {"n": "first one"}, dedup_id="order-17")
    with pytest.raises(DuplicateConflict, match="'order-17'") as caught:
        await stream.publish_message(key, {"n": "second one"}, dedup_id="order-17")
    assert caught.value.first_id == first
    assert caught.value.stream == key
    assert not caught.value.outcome_unknown
    assert redis.xlen(key) == 1
    assert "one" not in str(caught.value) + caplog.text
    assert await stream.publish_message(key, {"n": "first one"}, dedup_id="order-17") == first


async def test_other_keys_and_other_streams(stream, key, redis):
    """A key says nothing about other keys, about other streams, or about messages without one."""
    ids = {
        await stream.publish_message(key, {"n": 1}, dedup_id="order-17"),
        await stream.publish_message(key, {"n": 1}, dedup_id="order-18"),
        await stream.publish_message(key, {"n": 1}),
    }
    assert len(ids) == redis.xlen(key) == 3
    await stream.publish_message(f"{key}:other", {"n": 2}, dedup_id="order-17")
    assert redis.xlen(f"{key}:other") == 1


@pytest.mark.parametrize(
    "dedup_id", ["with space", "new\nline", "Zoë ☃", "a:b", "{a}b", "}", "*", " ", "-", "x" * 1000]
)
async def test_any_text_is_a_key(stream, key, redis, dedup_id):
    """Whatever stands in it, it is one key and no other."""
    first = await stream.publish_message(key, {"n": 1}, dedup_id=dedup_id)
    assert await stream.publish_message(key, {"n": 1}, dedup_id=dedup_id) == first
    assert await stream.publish_message(key, {"n": 1}, dedup_id=f"{dedup_id} ") != first
    assert redis.exists(record_of(key, dedup_id))


@pytest.mark.parametrize("name", ["orders", "app:{eu}:orders"])
def test_it_is_remembered_in_the_slot_of_the_stream(name):
    """The key that remembers lies beside the stream, also in a Cluster."""
    expected = {"orders": "{orders}.dedup:17", "app:{eu}:orders": "app:{eu}:orders.dedup:17"}
    assert dedup_key(name, "17") == expected[name]


SAME = [
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({"a": {"x": 1, "y": [{"p": 1, "q": 2}]}}, {"a": {"y": [{"q": 2, "p": 1}], "x": 1}}),
    ({"t": "text", "n": 1, "b": b"\xff"}, {"b": b"\xff", "n": 1, "t": "text"}),
]
DIFFERENT: list[dict[str, Any]] = [
    {"a": 1},
    {"a": 1.0},
    {"a": True},
    {"a": "1"},
    {"a": b"1"},
    {"a": [1]},
    {"a": ["1"]},
    {"a": [1.0]},
    {"a": None},
    {"a": "null"},
    {"a": ""},
    {"a": {}},
    {"a": [1, 2]},
    {"a": [2, 1]},
    {"a": {"x": 1}},
    {"a": {"x": True}},
    {"a": '{"x":1}'},
    {"a": 1, "b": 1},
    {"b": 1},
    {"ab": ""},
    {"a": "b"},
    {"a": "", "b": ""},
    {"": ""},
    {},
]


@pytest.mark.parametrize(("message", "again"), SAME)
async def test_the_order_of_keys_does_not_matter(stream, key, redis, message, again):
    """A dict is the same whatever order its keys are in, however deep."""
    first = await stream.publish_message(key, message, dedup_id="k")
    assert await stream.publish_message(key, again, dedup_id="k") == first
    assert redis.xlen(key) == 1


async def test_headers_do_not_matter(stream, key, redis):
    """Headers may differ each time, as those for tracing do; the first ones are kept."""
    first = await stream.publish_message(key, {"n": 1}, dedup_id="k", headers={"trace": "1"})
    assert await stream.publish_message(key, {"n": 1}, dedup_id="k") == first
    headers = {"trace": "2", "more": "x"}
    assert await stream.publish_message(key, {"n": 1}, dedup_id="k", headers=headers) == first
    [(_, fields)] = redis.xrange(key)
    assert fields[b"_step:h:trace"] == b"1"


async def test_types_matter(stream, key, redis):
    """1, 1.0, True and "1" are different messages, as are all others that read differently."""
    for number, message in enumerate(DIFFERENT):
        await stream.publish_message(key, message, dedup_id=str(number))
    for number, message in itertools.product(range(len(DIFFERENT)), DIFFERENT):
        if message is not DIFFERENT[number]:
            with pytest.raises(DuplicateConflict):
                await stream.publish_message(key, message, dedup_id=str(number))
    assert redis.xlen(key) == len(DIFFERENT)


async def test_what_default_converts(flavour, pool, key, redis):
    """A message is compared as it is stored."""
    async with flavour.stream(pool, default=str) as stream:
        day = dt.date(2026, 1, 2)
        first = await stream.publish_message(key, {"day": day}, dedup_id="k")
        assert await stream.publish_message(key, {"day": "2026-01-02"}, dedup_id="k") == first
        with pytest.raises(DuplicateConflict):
            await stream.publish_message(key, {"day": dt.date(2026, 1, 3)}, dedup_id="k")


# --- The fingerprint ------------------------------------------------------------------------


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=5,
)
messages = st.dictionaries(
    st.text(max_size=2).filter(lambda name: not name.startswith("_step:")),
    values | st.binary(max_size=3),
    max_size=4,
)


def canonical(value):
    """A text that tells values apart by type too, and not by the order of keys."""
    if isinstance(value, dict):
        inner = sorted((name, canonical(each)) for name, each in value.items())
        return f"dict{inner}"
    if isinstance(value, list):
        return f"list{[canonical(each) for each in value]}"
    return f"{type(value).__name__} {value!r}"


def shuffled(value, random):
    """The same value with the keys of all dicts in another order."""
    if isinstance(value, dict):
        names = list(value)
        random.shuffle(names)
        return {name: shuffled(value[name], random) for name in names}
    if isinstance(value, list):
        return [shuffled(each, random) for each in value]
    return value


def fingerprint_of(message):
    return fingerprint(Codec().encode(message))


@given(message=messages, random=st.randoms(use_true_random=False))
def test_the_order_of_keys_never_matters(message, random):
    """Any dict has the fingerprint of the same dict in another order."""
    assert fingerprint_of(shuffled(message, random)) == fingerprint_of(message)


@given(message=messages, other=messages)
def test_different_messages_differ(message, other):
    """Messages have one fingerprint exactly if they are equal, types included."""
    is_same = canonical(message) == canonical(other)
    assert (fingerprint_of(message) == fingerprint_of(other)) == is_same


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, b"XVzBvVkXFHrFLnjs"),
        ({"n": 1}, b"d695TH1CA4w-4QNO"),
        ({"text": "Zoë", "raw": b"\xff\x00"}, b"KgrfPhf2RwCLNJm8"),
        (
            {"b": {"y": [1, 2.5, None, True], "x": "ü☃"}, "a": -0.0, "c": 10**30, "d": 1e22},
            b"TQ7QijSvArPTxqsh",
        ),
        (
            {"order": "17", "items": [{"sku": "a", "count": 2}, {"sku": "b", "count": 1}]},
            b"FPneZWAcc1PGI0DC",
        ),
    ],
    ids=repr,
)
def test_golden_vectors(message, expected):
    """Servers keep fingerprints for a day and longer, so they are the same in all versions."""
    assert fingerprint_of(message) == expected


# --- Windows --------------------------------------------------------------------------------


async def test_a_key_is_remembered_for_a_day(stream, key, redis):
    """That is the default, from the first time on; publishing again does not prolong it."""
    await stream.publish_message(key, {"n": 1}, dedup_id="k")
    assert DAY_MS - 60_000 < redis.pttl(record_of(key, "k")) <= DAY_MS
    redis.pexpire(record_of(key, "k"), 50_000)
    await stream.publish_message(key, {"n": 1}, dedup_id="k")
    with pytest.raises(DuplicateConflict):
        await stream.publish_message(key, {"n": 2}, dedup_id="k")
    assert redis.pttl(record_of(key, "k")) <= 50_000


async def test_after_the_window(stream, key, redis, until):
    """Then the key is free for the same message and for another one."""
    first = await stream.publish_message(key, {"n": 1}, dedup_id="k", dedup_seconds=0.3)
    assert await stream.publish_message(key, {"n": 1}, dedup_id="k", dedup_seconds=0.3) == first
    await until(lambda: not redis.exists(record_of(key, "k")))
    second = await stream.publish_message(key, {"n": 1}, dedup_id="k", dedup_seconds=0.3)
    assert second != first
    await until(lambda: not redis.exists(record_of(key, "k")))
    assert await stream.publish_message(key, {"n": 2}, dedup_id="k") not in (first, second)
    assert redis.xlen(key) == 3


async def test_windows_differ_by_key(stream, key, redis):
    """Each key is remembered for as long as its first publisher said."""
    await stream.publish_message(key, {"n": 1}, dedup_id="short", dedup_seconds=7)
    await stream.publish_message(key, {"n": 1}, dedup_id="short", dedup_seconds=7000)
    await stream.publish_message(key, {"n": 1}, dedup_id="long", dedup_seconds=1_000_000)
    assert 6000 < redis.pttl(record_of(key, "short")) <= 7000
    assert redis.pttl(record_of(key, "long")) > 999_000_000


async def test_a_key_outlives_its_entry(stream, key, redis):
    """An entry that was trimmed or deleted is not written again within the window."""
    first = await stream.publish_message(key, {"n": 1}, dedup_id="k")
    redis.xdel(key, first)
    assert await stream.publish_message(key, {"n": 1}, dedup_id="k") == first
    redis.delete(key)
    assert await stream.publish_message(key, {"n": 1}, dedup_id="k") == first
    assert not redis.exists(key)


async def test_a_restart_of_the_server(flavour, private_server):
    """A server that keeps its data keeps what was published under a key."""
    server = private_server("--appendonly", "yes", "--appendfsync", "always")
    params = StepRedisPoolParams.from_url(server.url, socket_connect_timeout=10)
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        first = await stream.publish_message("orders", {"n": 1}, dedup_id="k")
        await asyncio.to_thread(server.restart)
        assert await stream.publish_message("orders", {"n": 1}, dedup_id="k") == first
        with pytest.raises(DuplicateConflict):
            await stream.publish_message("orders", {"n": 2}, dedup_id="k")
    with server.client() as redis:
        assert redis.xlen("orders") == 1


# --- Any history ----------------------------------------------------------------------------

KEYS = ("a", "b", "c")
PAYLOADS = (
    ({"n": 1, "m": {"x": 1, "y": 2}}, {"m": {"y": 2, "x": 1}, "n": 1}),
    ({"n": 1.0, "m": {"x": 1, "y": 2}},),
    ({"n": "1"},),
)


@attrs.frozen
class Publish:
    """A message is published under a key, by one of several stream objects, now or later."""

    by: int
    dedup_id: str
    payload: int
    spelling: int
    trace: str
    delayed: bool


@attrs.frozen
class Pass:
    """The window of a key passes."""

    dedup_id: str


@attrs.frozen
class Cancel:
    """One of the delayed messages is taken back."""

    number: int


dedup_ids = st.sampled_from(KEYS)
steps = st.lists(
    st.builds(
        Publish,
        *(st.integers(0, 2), dedup_ids, st.integers(0, len(PAYLOADS) - 1), st.integers(0, 1)),
        *(st.sampled_from("xy"), st.sampled_from([False, False, True])),
    )
    | st.builds(Pass, dedup_ids)
    | st.builds(Cancel, st.integers(0, 10)),
    min_size=8,
    max_size=30,
)


@pytest.fixture
def several(params):
    """Stream objects: two of one pool, and one of another."""
    with (
        sync.StepRedisPool(params) as pool,
        sync.StepRedisPool(params) as other,
        sync.StepRedisStream(pool) as first,
        sync.StepRedisStream(pool) as second,
        sync.StepRedisStream(other) as third,
    ):
        yield first, second, third


def decoded(fields):
    return Codec().decode([part for pair in fields.items() for part in pair]).data


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=steps)
def test_any_history(several, redis, key, steps):
    """Whoever publishes what under which key: the first one counts until its window passes."""
    redis.delete(key, f"{{{key}}}.delayed", *(record_of(key, name) for name in KEYS))
    known: dict[str, tuple[str, int]] = {}
    written: list[tuple[str, int]] = []
    delayed: dict[str, int] = {}
    for step in steps:
        if isinstance(step, Pass):
            redis.pexpire(record_of(key, step.dedup_id), 0)
            known.pop(step.dedup_id, None)
        elif isinstance(step, Cancel):
            if delayed:
                handle = sorted(delayed)[step.number % len(delayed)]
                assert several[0].cancel_delayed(handle)
                del delayed[handle]
                known = {name: first for name, first in known.items() if first[0] != handle}
        else:
            spellings = PAYLOADS[step.payload]
            message = spellings[step.spelling % len(spellings)]
            options = {"delay_seconds": 3600} if step.delayed else {}
            options |= {"dedup_id": step.dedup_id, "headers": {"trace": step.trace}}
            publish = several[step.by].publish_message
            first = known.get(step.dedup_id)
            if first is None:
                result = publish(key, message, **options)
                known[step.dedup_id] = result, step.payload
                assert result not in delayed
                assert result not in dict(written)
                if step.delayed:
                    delayed[result] = step.payload
                else:
                    written.append((result, step.payload))
            elif first[1] == step.payload:
                assert publish(key, message, **options) == first[0]
            else:
                with pytest.raises(DuplicateConflict) as caught:
                    publish(key, message, **options)
                assert caught.value.first_id == first[0]
        stored = several[0].delayed(key)
        assert {each.handle: each.data for each in stored.messages} == {
            handle: PAYLOADS[payload][0] for handle, payload in delayed.items()
        }
        assert [(entry_id.decode(), decoded(fields)) for entry_id, fields in redis.xrange(key)] == [
            (entry_id, PAYLOADS[payload][0]) for entry_id, payload in written
        ]


# --- At the same time -----------------------------------------------------------------------


async def test_many_tasks_at_once(flavour, pool, key, redis):
    """Of many that publish under one key at once, one writes; all get its id."""
    async with (
        flavour.stream(pool) as one,
        flavour.stream(pool) as two,
        flavour.stream(pool) as three,
    ):
        calls = [
            stream.publish_message(key, {"n": 1}, dedup_id="order-17")
            for stream in (one, two, three) * 20
        ]
        ids = set(await asyncio.gather(*calls))
    assert [entry_id.decode() for entry_id, _ in redis.xrange(key)] == list(ids)


async def test_many_conflicts_at_once(flavour, pool, stream, key, redis):
    """Of different messages under one key at once, one is written and the others are told."""
    calls = [stream.publish_message(key, {"n": n}, dedup_id="order-17") for n in range(40)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    [(entry_id, fields)] = redis.xrange(key)
    winner = int(fields[b"n"])
    assert results.pop(winner) == entry_id.decode()
    assert {type(result) for result in results} == {DuplicateConflict}
    assert {result.first_id for result in results} == {entry_id.decode()}


PROGRAM = """
import sys
from step_redis.sync import StepRedisPool, StepRedisPoolParams, StepRedisStream

url, key = sys.argv[1:]
with StepRedisPool(StepRedisPoolParams.from_url(url)) as pool, StepRedisStream(pool) as stream:
    stream.ping()
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(50):
        print(stream.publish_message(key, {"n": n}, dedup_id=f"order-{n}"))
"""


def test_many_processes_at_once(server, key, redis):
    """Processes that publish the same messages write each once, and get the same ids."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, server.url, key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=30)[0].split() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    written = {fields[b"n"]: entry_id.decode() for entry_id, fields in redis.xrange(key)}
    assert redis.xlen(key) == len(written) == 50
    assert said == [[written[b"%d" % n] for n in range(50)]] * 4


async def test_a_lost_reply(flavour, params, proxy, key, redis):
    """It is asked for again, and the id comes back; the message is no conflict with itself."""
    behind = attrs.evolve(params, host=proxy.host, port=proxy.port)
    async with flavour.pool(behind) as pool, flavour.stream(pool) as stream:
        await stream.publish_message(key, {"n": 0}, dedup_id="before")
        proxy.drop_replies(b"order-17")
        first = await stream.publish_message(key, {"n": 1}, dedup_id="order-17")
    assert redis.xrange(key)[1][0].decode() == first
    assert redis.xlen(key) == 2


# --- With other options ---------------------------------------------------------------------


async def test_a_delayed_message(stream, key, redis, until):
    """Its handle comes back each time, also after it was moved into the stream."""
    options = {"dedup_id": "order-17", "delay_seconds": 0.1}
    handle = await stream.publish_message(key, {"n": 1}, **options)
    assert await stream.publish_message(key, {"n": 1}, **options) == handle
    assert await stream.publish_message(key, {"n": 1}, dedup_id="order-17") == handle
    with pytest.raises(DuplicateConflict) as caught:
        await stream.publish_message(key, {"n": 2}, **options)
    assert caught.value.first_id == handle
    assert (await stream.delayed(key)).count == 1
    await until(lambda: stream.publish_due(key))
    assert redis.xlen(key) == 1
    assert await stream.publish_message(key, {"n": 1}, **options) == handle
    assert (await stream.delayed(key)).count == 0


async def test_delaying_again_what_is_there(stream, key):
    """An entry that is in the stream is not published later once more."""
    first = await stream.publish_message(key, {"n": 1}, dedup_id="k")
    assert await stream.publish_message(key, {"n": 1}, dedup_id="k", delay_seconds=5) == first
    assert (await stream.delayed(key)).count == 0


async def test_the_window_of_a_delayed_message(stream, key, redis):
    """It begins when the message is due, so that the key is never free before."""
    options = {"dedup_id": "k", "dedup_seconds": 100, "delay_seconds": 1000}
    await stream.publish_message(key, {"n": 1}, **options)
    assert 1_090_000 < redis.pttl(record_of(key, "k")) <= 1_100_000
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1000)
    options = {"dedup_id": "past", "dedup_seconds": 100, "deliver_at": moment}
    await stream.publish_message(key, {"n": 1}, **options)
    assert 90_000 < redis.pttl(record_of(key, "past")) <= 100_000


async def test_taking_back_an_older_message(stream, key, redis):
    """Of a key that was used again after its window nothing is freed by it."""
    options = {"dedup_id": "k", "delay_seconds": 60}
    older = await stream.publish_message(key, {"n": 1}, **options)
    redis.pexpire(record_of(key, "k"), 0)
    newer = await stream.publish_message(key, {"n": 2}, **options)
    assert await stream.cancel_delayed(older) is True
    assert await stream.publish_message(key, {"n": 2}, **options) == newer
    assert (await stream.delayed(key)).count == 1


async def test_max_len(stream, key, redis):
    """The stream is trimmed as without a key."""
    for n in range(20):
        await stream.publish_message(key, {"n": n}, 5, exact_trim=True, dedup_id=str(n))
    assert redis.xlen(key) == 5


async def test_a_stream_that_is_not_to_be_made(stream, key, redis):
    """create=False makes no stream; the key is free for when there is one."""
    with pytest.raises(StreamNotFoundError):
        await stream.publish_message(key, {"n": 1}, dedup_id="k", create=False)
    assert not redis.exists(key)
    assert not records(redis, key)
    await stream.publish_message(key, {"n": 2}, dedup_id="k")
    assert redis.xlen(key) == 1


async def test_a_key_of_another_type(stream, key, redis, until):
    """If the stream's name has something else nothing is remembered either."""
    redis.set(key, "text")
    with pytest.raises(NotAStreamError):
        await stream.publish_message(key, {"n": 1}, dedup_id="k")
    redis.delete(key)
    await until(lambda: not redis.exists(record_of(key, "k")))
    await stream.publish_message(key, {"n": 2}, dedup_id="k")
    assert redis.xlen(key) == 1


async def test_a_key_that_was_only_reserved(stream, key, redis):
    """What stands there while a message could not be written, yet, is in nobody's way."""
    redis.set(record_of(key, "k"), "- -", px=50_000)
    first = await stream.publish_message(key, {"n": 1}, dedup_id="k")
    assert await stream.publish_message(key, {"n": 1}, dedup_id="k") == first


async def test_a_record_of_another_type(stream, key, redis):
    """If what is remembered is something else, nothing is written and nothing changed."""
    redis.rpush(record_of(key, "k"), "item")
    with pytest.raises(StepRedisError):
        await stream.publish_message(key, {"n": 1}, dedup_id="k")
    assert not redis.exists(key)
    assert redis.lrange(record_of(key, "k"), 0, -1) == [b"item"]


@pytest.mark.parametrize("options", [{"dedup_id": "k"}, {"delay_seconds": 1}], ids=str)
@pytest.mark.parametrize("missing", ["-@scripting", "-evalsha -eval"])
async def test_without_the_right_to_use_scripts(flavour, private_server, options, missing):
    """There is no way without scripts: the error says so, and nothing is written."""
    server = private_server()
    with server.client() as redis:
        redis.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "+@all", *missing.split())
        params = StepRedisPoolParams.from_url(server.url, username="few", password="pw")
        async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
            with pytest.raises(PermissionDeniedError, match="evalsha") as caught:
                await stream.publish_message("orders", {"n": 1}, **options)
            assert not caught.value.outcome_unknown
            assert redis.keys("*") == []
            await stream.publish_message("orders", {"n": 1})
            assert redis.xlen("orders") == 1


@pytest.mark.parametrize("missing", ["xadd", "xadd -del", "set", "get", "hset"])
async def test_without_a_right_that_the_script_needs(flavour, private_server, missing, until):
    """Nothing is written and the key stays free, whichever right it is that is missing."""
    server = private_server()
    with server.client() as redis:
        rules = f"on >pw ~* +@all -{missing}".split()
        redis.execute_command("ACL", "SETUSER", "few", *rules)
        few = StepRedisPoolParams.from_url(server.url, username="few", password="pw")
        async with flavour.pool(few) as pool, flavour.stream(pool) as stream:
            with pytest.raises(PermissionDeniedError):
                await stream.publish_message("orders", {"n": 1}, dedup_id="k")
        assert not redis.exists("orders")
        await until(lambda: not redis.exists(record_of("orders", "k")))
        params = StepRedisPoolParams.from_url(server.url)
        async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
            await stream.publish_message("orders", {"n": 2}, dedup_id="k")


@pytest.mark.parametrize("dedup_id", ["", 17, b"k", True, "\udcff"], ids=repr)
async def test_what_is_no_key(stream, key, redis, dedup_id):
    """A key is a text that is not empty."""
    with pytest.raises(ConfigurationError, match="dedup_id"):
        await stream.publish_message(key, {"n": 1}, dedup_id=dedup_id)
    assert not redis.exists(key)


@pytest.mark.parametrize("seconds", [0, -1, 0.0001, None, "1", True, float("nan"), 1e10], ids=repr)
async def test_what_is_no_window(stream, key, redis, seconds):
    """A window is a number of seconds, at least a millisecond."""
    with pytest.raises(ConfigurationError, match="dedup_seconds"):
        await stream.publish_message(key, {"n": 1}, dedup_id="k", dedup_seconds=seconds)
    assert not redis.exists(key)


async def test_a_name_that_no_key_can_be_beside(stream, key, redis):
    """Of a stream whose name has braces that are no hash tag no key is remembered."""
    with pytest.raises(ConfigurationError, match="braces"):
        await stream.publish_message(f"{key}{{", {"n": 1}, dedup_id="k")
    assert not redis.exists(f"{key}{{")


async def test_too_many_fields(stream, key, redis):
    """More fields than a script can write are refused, and the way out is told."""
    with pytest.raises(EncodeError, match="without dedup_id"):
        await stream.publish_message(key, {str(n): "" for n in range(5000)}, dedup_id="k")
    assert not redis.exists(key)
    large = {str(n): "" for n in range(3900)}
    first = await stream.publish_message(key, large, dedup_id="k")
    assert await stream.publish_message(key, large, dedup_id="k") == first


async def test_a_conflict_is_logged_once(stream, key, caplog):
    """One record, with the stream and the user's key."""
    caplog.set_level(logging.INFO)
    await stream.publish_message(key, {"n": 1}, dedup_id="order-17")
    caplog.clear()
    with pytest.raises(DuplicateConflict):
        await stream.publish_message(key, {"n": 2}, dedup_id="order-17")
    [record] = caplog.records
    assert key in record.getMessage()
    assert "order-17" in record.getMessage()


# --- What it costs --------------------------------------------------------------------------

MOST_BYTES = 250


def test_memory_of_a_key(private_server, capsys):
    """What is remembered of a key takes little: of `order-17` in `orders` so many bytes."""
    server, count = private_server(), 3_000
    params = StepRedisPoolParams.from_url(server.url)
    with (
        server.client() as redis,
        sync.StepRedisPool(params) as pool,
        sync.StepRedisStream(pool) as stream,
    ):

        def publish(n):
            stream.publish_message("orders", {"n": n}, 1, exact_trim=True, dedup_id=f"order-{n}")

        publish(17)
        alone = redis.memory_usage(record_of("orders", "order-17"))
        before = redis.info("memory")["used_memory"]
        for n in range(count):
            publish(n)
        each = (redis.info("memory")["used_memory"] - before) / count
    with capsys.disabled():
        sys.stdout.write(
            f"\n{server.info}: a dedup_id takes {alone} bytes by MEMORY USAGE, and {each:.0f} of"
            f" used_memory with {count} of them\n"
        )
    assert 0 < alone <= MOST_BYTES
    assert 0 < each <= MOST_BYTES
