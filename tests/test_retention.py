"""Retention: what is unacknowledged stays, what may go goes, and who holds back is named."""

import asyncio
import logging
import os
import shutil
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from consuming import Recorder, dead_letters, holders, is_settled, members, running
from retention_model import Clock, Place, groups_of, histories, is_right, play
from servers import BinarySource, ContainerSource
from step_redis import (
    ConfigurationError,
    GroupInUseError,
    HeldBack,
    NotAStreamError,
    PermissionDeniedError,
    Retention,
    RetryPolicy,
    StepRedisPoolParams,
    Trimmed,
    retention,
    sync,
)

PARKED = "_step:parked"

each_example_deletes_its_stream = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@contextmanager
def place_on(server):
    params = StepRedisPoolParams.from_url(server.url)
    with (
        server.client() as redis,
        sync.StepRedisPool(params) as pool,
        sync.StepRedisStream(pool) as stream,
    ):
        yield Place(redis, stream)


@pytest.fixture
def place(private_server):
    """A server for histories, which change how it stores streams."""
    with place_on(private_server()) as place:
        yield place


@pytest.fixture
def read(stream, key):
    """Let a consumer of a group receive so many messages; returns their ids."""

    async def read(count, group="g", consumer="c"):
        received = await stream.receive_message(key, group, consumer, count=count)
        return [message["id"] for message in received]

    return read


def ids_in(redis, key):
    return [entry_id.decode() for entry_id, _ in redis.xrange(key)]


# --- Any history ----------------------------------------------------------------------------


@settings(each_example_deletes_its_stream, max_examples=200)
@given(history=histories())
def test_any_history(place, key, history):
    """After each trim all is gone that may go, and nothing else; what holds back is named."""
    assert is_right(history, play(history, place, key, Clock.at(time.time())))


def _sources():
    words = os.environ.get("STEP_REDIS_TEST_SERVERS", "").split()
    for word in words:
        if word.startswith("docker:"):
            yield ContainerSource(word.removeprefix("docker:"), word)
            continue
        for entry in filter(None, word.split(os.pathsep)):
            head, equals, tail = entry.partition("=")
            path = Path(tail if equals and "/" not in head else entry).expanduser()
            yield BinarySource(str(shutil.which(path)), entry)


def test_all_servers_agree(key):
    """The same history comes to the same on every server, to the letter."""
    sources = list(_sources())
    if len(sources) < 2:
        pytest.skip("STEP_REDIS_TEST_SERVERS names no servers to compare")
    with ExitStack() as stack:
        places = []
        for source in sources:
            server = source.start()
            stack.callback(server.stop)
            places.append(stack.enter_context(place_on(server)))

        @settings(deadline=None, max_examples=200)
        @given(history=histories())
        def agree(history):
            clock, said = Clock.at(time.time()), []
            for place in places:
                outcomes = play(history, place, key, clock)
                said.append((outcomes, groups_of(place.redis, key)))
            assert is_right(history, said[0][0])
            assert all(other == said[0] for other in said)

        agree()


BUGS = {
    "what is unread goes": ("(has_unread and is_above(id, group.last))", "false"),
    "what is pending goes": ("if owner[id] or (", "if ("),
    "nothing goes behind what is held back, as by XTRIM MINID": (
        "if not held[id] then doomed",
        "if held[id] then break else doomed",
    ),
    "one too many goes": ("if #page >= beyond and", "if #page > beyond and"),
    "one too few goes": ("most = math.min(most, beyond)", "most = math.min(most, beyond - 1)"),
    "what pages before have kept is forgotten": (" - ARGV[1] - ARGV[4]", " - ARGV[1]"),
    "what pages before have removed counts as kept": ("#page - #doomed", "#page"),
    "only what exceeds both limits goes": (">= beyond and tonumber", ">= beyond or tonumber"),
    "entries deleted while pending hide others": ("'(' .. rows[#rows][1]", "nil"),
    "there are no further pages": ("if not is_last then", "if false then"),
    "a large entry ends the search": ("#entries < count", "#entries < count or size >= SIZE"),
    "groups for redriving receive": (
        "reads and about['last-delivered-id'] or MAX_ID",
        "about['last-delivered-id']",
    ),
    "groups whose names begin alike do not receive": (
        "string.sub(about['name'], 1, #ARGV[6]) ~= ARGV[6]",
        "string.sub(about['name'], 1, 6) ~= '_step:'",
    ),
    "ids compare as texts": ("if #a ~= #b then return #a < #b end", ""),
    "nobody is named": ("owner[id] or ''", "''"),
    "in bulk what is unread goes": ("if is_above(id, group.last) then id = group.last end", ""),
    "in bulk what is pending goes": (
        "if group.lowest and is_above(id, group.lowest) then id = group.lowest end",
        "",
    ),
    "in bulk more goes than exceeds": ("math.min(over(), BULK)", "BULK"),
    "in bulk the young go": ("string.format('%.0f-0', oldest), BULK", "MAX_ID, BULK"),
    "what goes in bulk is not counted": ("removed\nend\nif", "0\nend\nif"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_histories_find(place, key, bug):
    """Each rule of the script is needed: without it some history ends otherwise."""
    clock = Clock.at(time.time())
    find(
        histories(),
        lambda history: not is_right(history, play(history, place, key, clock, BUGS[bug])),
        settings=settings(
            max_examples=1000,
            phases=[Phase.generate],
            deadline=None,
            derandomize=True,
            database=None,
        ),
    )


# --- Who holds back -------------------------------------------------------------------------


async def test_a_slow_group_holds_back(stream, key, redis, publish, read):
    """What one group has not acknowledged stays; group, consumer, id and age of it are told."""
    await stream.create_input_stream(key, "slow")
    ids = await publish(10)
    await stream.acknowledge_message(key, "g", await read(10))
    [first, second, _] = await read(3, "slow", "ann")
    await stream.acknowledge_message(key, "slow", first)

    trimmed = await stream.trim(key, Retention(max_len=2))
    assert trimmed.removed == 1
    [held] = trimmed.held_back
    assert held == HeldBack("slow", "ann", second, held.age_seconds)
    assert 0 <= held.age_seconds < 60
    assert ids_in(redis, key) == ids[1:]


async def test_a_group_that_received_nothing_holds_back(stream, key, redis, publish):
    """What a group has not received yet stays, and no consumer is told."""
    ids = await publish(10)
    trimmed = await stream.trim(key, Retention(max_len=2))
    assert trimmed.removed == 0
    assert [(held.group, held.consumer, held.message_id) for held in trimmed.held_back] == [
        ("g", None, ids[0])
    ]
    assert ids_in(redis, key) == ids


async def test_what_lies_between_goes(stream, key, redis, publish, read):
    """Entries go that lie behind one that is still pending."""
    ids = await publish(10)
    await read(10)
    await stream.acknowledge_message(key, "g", [ids[n] for n in (0, 2, 3, 5, 9)])
    assert (await stream.trim(key, Retention(max_len=2))).removed == 4
    assert ids_in(redis, key) == [ids[n] for n in (1, 4, 6, 7, 8, 9)]


async def test_the_age_of_what_is_held(stream, key, redis):
    """It counts from when the entry was published, by its id."""
    redis.xadd(key, {"f": "v"}, id=f"{int(time.time() * 1000) - 3_600_000}-0")
    await stream.create_input_stream(key, "g")
    [held] = (await stream.trim(key, Retention(max_len=0))).held_back
    assert 3600 <= held.age_seconds < 3660


async def test_the_name_of_a_group_is_any_bytes(stream, key, redis, publish):
    """A group of another program is told by a name that can be printed."""
    await publish()
    redis.xgroup_create(key, b"\xffgroup", "0")
    redis.xreadgroup(b"\xffgroup", b"\xfe", {key: ">"})
    trimmed = await stream.trim(key, Retention(max_len=0))
    assert {(held.group, held.consumer) for held in trimmed.held_back} == {
        ("g", None),
        ("\\xffgroup", "\\xfe"),
    }


async def test_what_waits_to_be_delivered_again_holds_back(
    flavour, pool, stream, key, redis, publish, until
):
    """A message that failed and waits for its next delivery is not acknowledged."""
    [message_id] = await publish()

    async def fail(_):
        raise ValueError("made up")

    consumer = flavour.consumer(pool, key, retry=RetryPolicy(delays=600))
    async with running(consumer, fail):
        await until(lambda: holders(redis, key).get(PARKED.encode()) == 1)
        trimmed = await stream.trim(key, Retention(max_len=0))
    [held] = trimmed.held_back
    assert (held.consumer, held.message_id) == (PARKED, message_id)
    assert ids_in(redis, key) == [message_id]


async def test_dead_letters_on_their_way_stay(flavour, pool, stream, key, redis, publish, until):
    """Of a dead-letter stream what was redriven stays until it is settled; what was not may go."""
    await publish(3)
    dead = f"{{{key}}}.dead"

    async def fail(_):
        raise ValueError("made up")

    async with running(flavour.consumer(pool, key, retry=RetryPolicy(max_deliveries=1)), fail):
        await until(is_settled(redis, key))
    [_, (redriven, _), _] = dead_letters(redis, key)
    await stream.redrive(key, "g", ids=[redriven])

    trimmed = await stream.trim(dead, Retention(max_len=0))
    assert trimmed.removed == 2
    [held] = trimmed.held_back
    assert (held.group, held.consumer, held.message_id) == (
        f"_step:redrive:g@{key}",
        PARKED,
        redriven,
    )
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(lambda: handled.ids)
        await until(lambda: not redis.xlen(dead))


# --- Limits ---------------------------------------------------------------------------------


async def test_without_groups_the_limits_decide(stream, key, redis):
    """A stream that nobody reads keeps the latest so many entries."""
    ids = await stream.publish_messages(key, [{"n": n} for n in range(10)])
    assert await stream.trim(key, Retention(max_len=3)) == Trimmed(removed=7, held_back=[])
    assert ids_in(redis, key) == ids[7:]
    assert await stream.trim(key, Retention(max_len=3)) == Trimmed(removed=0, held_back=[])


async def test_age(stream, key, redis):
    """What is older than max_age_seconds goes, and nothing younger."""
    now = int(time.time() * 1000)
    ids = [f"{now - age * 1000}-0" for age in (7200, 3700, 3500, 0)]
    for entry_id in ids:
        redis.xadd(key, {"f": "v"}, id=entry_id)
    assert (await stream.trim(key, Retention(max_age_seconds=3600))).removed == 2
    assert ids_in(redis, key) == ids[2:]


async def test_either_limit(stream, key, redis):
    """With both limits, what exceeds either goes."""
    now = int(time.time() * 1000)
    for age in (7200, 3500, 10, 0):
        redis.xadd(key, {"f": "v"}, id=f"{now - age * 1000}-0")
    both = Retention(max_len=2, max_age_seconds=3600)
    assert (await stream.trim(key, both)).removed == 2
    assert (await stream.trim(key, Retention(max_len=9, max_age_seconds=5))).removed == 1
    assert ids_in(redis, key) == [f"{now}-0"]


async def test_none_is_kept(stream, key, redis, publish, read):
    """max_len=0 empties a stream that all have acknowledged; it and its groups stay."""
    await publish(5)
    await stream.acknowledge_message(key, "g", await read(5))
    assert await stream.trim(key, Retention(max_len=0)) == Trimmed(removed=5, held_back=[])
    assert redis.xlen(key) == 0
    assert len(redis.xinfo_groups(key)) == 1


async def test_more_than_a_page(stream, key, redis, read):
    """A stream of many pages is trimmed in one call, with entries held back amid it."""
    ids = await stream.publish_messages(key, [{"n": n} for n in range(3500)])
    await stream.create_input_stream(key, "g")
    await stream.acknowledge_message(key, "g", await read(3500))
    keep = [ids[n] for n in (0, 999, 1000, 1001, 2500)]
    redis.xclaim(key, "g", "c", 0, keep, force=True)
    trimmed = await stream.trim(key, Retention(max_len=100))
    assert trimmed.removed == 3500 - 100 - len(keep)
    assert [held.message_id for held in trimmed.held_back] == [ids[0]]
    assert ids_in(redis, key) == keep + ids[-100:]


async def test_a_stream_that_is_not_there(stream, key, redis):
    """There is nothing to do, and no stream is made."""
    assert await stream.trim(key, Retention(max_len=0)) == Trimmed(removed=0, held_back=[])
    assert not redis.exists(key)


async def test_another_type(stream, key, redis):
    """A key that holds no stream is told as that, and left alone."""
    redis.set(key, "text")
    with pytest.raises(NotAStreamError, match=key):
        await stream.trim(key, Retention(max_len=0))
    assert redis.get(key) == b"text"


async def test_a_user_who_may_not_delete(flavour, private_server):
    """Trimming without the right to is an error, and removes nothing."""
    server = private_server()
    with server.client() as redis:
        redis.execute_command(
            "ACL", "SETUSER", "few", "on", ">pw", "~*", "+@all", "-xdel", "-xtrim"
        )
        redis.xadd("orders", {"f": "v"})
        params = StepRedisPoolParams.from_url(server.url, username="few", password="pw")
        async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
            with pytest.raises(PermissionDeniedError):
                await stream.trim("orders", Retention(max_len=0))
        assert redis.xlen("orders") == 1


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"max_len": None, "max_age_seconds": None},
        {"max_len": -1},
        {"max_len": 1.5},
        {"max_len": True},
        {"max_age_seconds": -1},
        {"max_age_seconds": float("nan")},
        {"max_age_seconds": float("inf")},
        {"max_age_seconds": "1"},
    ],
    ids=str,
)
def test_limits_that_make_no_sense(limits):
    """A retention has a limit at least, and limits are numbers; the error names the field."""
    given = [name for name, value in limits.items() if value is not None]
    with pytest.raises(ConfigurationError, match=given[0] if given else "at least one limit"):
        Retention(**limits)


async def test_what_is_no_retention(flavour, pool, stream, key):
    """A number in its place is refused before anything is sent."""
    with pytest.raises(ConfigurationError, match="retention must be Retention; got int"):
        await stream.trim(key, 100)
    with pytest.raises(ConfigurationError, match="retention must be Retention; got int"):
        flavour.stream(pool, retention=100)


# --- Forgetting a group ---------------------------------------------------------------------


async def test_a_forgotten_group_holds_nothing_back(stream, key, redis, publish, read):
    """What only it held back may go; what others hold back stays."""
    await stream.create_input_stream(key, "dead")
    ids = await publish(5)
    await read(2)
    await read(1, "dead")
    await stream.acknowledge_message(key, "g", ids[:1])
    assert (await stream.trim(key, Retention(max_len=0))).removed == 0
    assert await stream.forget_group(key, "dead") is True
    trimmed = await stream.trim(key, Retention(max_len=0))
    assert trimmed.removed == 1
    assert [held.group for held in trimmed.held_back] == ["g"]
    assert [info["name"] for info in redis.xinfo_groups(key)] == [b"g"]


async def test_there_is_no_such_group(stream, key, redis, publish):
    """False for a group and for a stream that are not there; nothing is made."""
    await publish()
    assert await stream.forget_group(key, "other") is False
    assert await stream.forget_group(f"{key}:other", "g") is False
    assert not redis.exists(f"{key}:other")
    assert len(redis.xinfo_groups(key)) == 1


async def test_forgetting_on_another_type(stream, key, redis):
    """A key that holds no stream is told as that, and left alone."""
    redis.set(key, "text")
    with pytest.raises(NotAStreamError, match=key):
        await stream.forget_group(key, "g")
    assert redis.get(key) == b"text"


async def test_a_group_in_use_is_not_forgotten(flavour, pool, stream, key, redis, publish, until):
    """While a StepRedisConsumer is at work it is refused, by the name of it; afterwards not."""
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(lambda: members(redis, key))
        [name] = members(redis, key)
        with pytest.raises(GroupInUseError, match=name.decode()) as caught:
            await stream.forget_group(key, "g")
        assert (caught.value.stream, caught.value.group) == (key, "g")
        await publish()
        await until(is_settled(redis, key))
    assert len(handled.ids) == 1
    assert await stream.forget_group(key, "g") is True


async def test_other_consumers_do_not_count(stream, key, publish, read):
    """Of consumers without a lease nobody knows whether they are at work."""
    await publish()
    await read(1)
    assert await stream.forget_group(key, "g") is True


@pytest.mark.parametrize("dead", [None, "{%s}.graveyard"], ids=["default", "named"])
async def test_nothing_of_a_group_is_left(flavour, pool, stream, key, redis, publish, until, dead):
    """Its keys go, and its group for redriving; dead letters and other groups' keys stay."""
    dead = dead and dead % key
    await stream.create_input_stream(key, "other")
    await publish(2)

    async def reject_one(message):
        if message.data["n"] == 0:
            await message.reject("made up")
        else:
            await message.nack(600)

    for group in "g", "other":
        async with running(flavour.consumer(pool, key, group, dead_letter_stream=dead), reject_one):
            await until(lambda group=group: is_left(redis, key, group))
        await stream.redrive(key, group, dead_letter_stream=dead)
    before = {name.decode() for name in redis.keys(f"*{key}*")}
    assert {f"{{{key}}}.{kind}:g" for kind in ("due", "attempts", "checkpoint")} < before

    assert await stream.forget_group(key, "g", dead_letter_stream=dead) is True
    left = {name.decode() for name in redis.keys(f"*{key}*")}
    assert not [name for name in left if name.endswith(":g") or "redrive:g@" in name]
    assert left == {name for name in before if not name.endswith(":g") and "redrive:g@" not in name}
    dead = dead or f"{{{key}}}.dead"
    assert [info["name"].decode() for info in redis.xinfo_groups(dead)] == [
        f"_step:redrive:other@{key}"
    ]
    assert redis.xlen(dead) == 2


def is_left(redis, key, group):
    """Whether one message is a dead letter and another one waits, and both were noted."""
    return (
        holders(redis, key, group).get(PARKED.encode()) == 1
        and redis.xpending(key, group)["pending"] == 1
        and redis.exists(f"{{{key}}}.checkpoint:{group}")
    )


async def test_a_group_made_again_is_a_new_one(stream, key, publish, read):
    """Forgetting says nothing about a later group of that name."""
    ids = await publish(2)
    await stream.acknowledge_message(key, "g", await read(1))
    await stream.forget_group(key, "g")
    assert await stream.create_input_stream(key, "g") is True
    assert await read(10) == ids


# --- With each publish ----------------------------------------------------------------------


@pytest.fixture
async def keeping(flavour, pool):
    """A stream object that trims what it publishes to, to 50 entries."""
    async with flavour.stream(pool, retention=Retention(max_len=50)) as keeping:
        yield keeping


async def test_publishing_keeps_the_stream_short(keeping, key, redis, read):
    """While a group acknowledges, the stream stays near its limit."""
    await keeping.create_input_stream(key, "g")
    longest = 0
    for n in range(1000):
        await keeping.publish_message(key, {"n": n})
        await keeping.acknowledge_message(key, "g", await read(10))
        longest = max(longest, redis.xlen(key))
    # It looks at one page every hundred, and removes whole nodes of the stream where it can.
    assert 50 <= longest <= 50 + 200 + 1


async def test_batches_keep_the_stream_short(keeping, key, redis, read):
    """So it does with batches, up to the size of one."""
    await keeping.create_input_stream(key, "g")
    longest = 0
    for _ in range(10):
        await keeping.publish_messages(key, ({"n": n} for n in range(250)))
        await keeping.acknowledge_message(key, "g", await read(250))
        longest = max(longest, redis.xlen(key))
    assert 250 <= longest <= 50 + 250 + 100


async def test_delayed_and_deduplicated_messages_count(keeping, key, redis):
    """Every way to publish keeps the stream short."""
    await keeping.publish_messages(key, ({"n": n} for n in range(300)))
    for n in range(100):
        await keeping.publish_message(key, {"n": n}, dedup_id=str(n))
    assert redis.xlen(key) <= 50 + 101


async def test_publishing_removes_nothing_unread(keeping, key, redis, read):
    """What no consumer has acknowledged stays, however much is published."""
    await keeping.create_input_stream(key, "g")
    await keeping.publish_messages(key, ({"n": n} for n in range(700)))
    for n in range(500):
        await keeping.publish_message(key, {"n": n})
    assert redis.xlen(key) == 1200
    received = await read(600)
    await keeping.acknowledge_message(key, "g", received[1:])
    for n in range(300):
        await keeping.publish_message(key, {"n": n})
    assert ids_in(redis, key)[0] == received[0]
    assert redis.xlen(key) == 1500 - 599


async def test_what_is_held_back_does_not_hide_the_rest(keeping, key, redis, read, monkeypatch):
    """Publishing looks through the stream page by page, also behind entries that stay."""
    monkeypatch.setattr(retention, "PAGE_ENTRIES", 100)
    await keeping.create_input_stream(key, "g")
    ids = await keeping.publish_messages(key, ({"n": n} for n in range(500)))
    await keeping.acknowledge_message(key, "g", (await read(500))[250:])
    for n in range(1000):
        await keeping.publish_message(key, {"n": n})
        await keeping.acknowledge_message(key, "g", await read(10))
    left = ids_in(redis, key)
    assert left[:250] == ids[:250]
    # It comes around once in some pages.
    assert 300 <= len(left) <= 300 + 100 * 5


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_a_late_reply_removes_nothing_within_the_limits(
    keeping, key, redis, monkeypatch, until
):
    """Publishers look at pages side by side; a reply that comes late does not confuse the count."""
    monkeypatch.setattr(retention, "PAGE_ENTRIES", 10)
    await keeping.create_input_stream(key, "g", start_id="$")
    for n in range(1, 121):
        redis.xadd(key, {"f": "v"}, id=f"{n}-0")
    redis.xgroup_setid(key, "g", "120-0")
    redis.xclaim(key, "g", "c", 0, [f"{n}-0" for n in range(1, 21)], force=True)
    trimmer, released = keeping._trimmer, asyncio.Event()
    ask, asked = trimmer._page, 0

    async def late_once(*args):
        nonlocal asked
        asked += 1
        this = asked
        page = await ask(*args)
        if this == 3:
            await released.wait()
        return page

    monkeypatch.setattr(trimmer, "_page", late_once)
    for _ in range(2):
        await trimmer.before_publishing(key, 100)
    late = asyncio.ensure_future(trimmer.before_publishing(key, 100))
    await until(lambda: asked == 3)
    while asked < 30:
        await trimmer.before_publishing(key, 100)
    released.set()
    await late
    for _ in range(30):
        await trimmer.before_publishing(key, 100)
    assert ids_in(redis, key) == [f"{n}-0" for n in (*range(1, 21), *range(71, 121))]


async def test_consumers_get_everything(flavour, pool, keeping, key, redis, until):
    """With several groups at work, each gets all that is published, and little is left."""
    handled = {group: Recorder() for group in ("fast", "slow")}

    async def dawdle(_):
        await asyncio.sleep(0.002)

    handled["slow"].then = dawdle
    for group in handled:
        await keeping.create_input_stream(key, group)
    fast, slow = (flavour.consumer(pool, key, group) for group in handled)
    async with running(fast, handled["fast"].handle), running(slow, handled["slow"].handle):
        for n in range(600):
            await keeping.publish_message(key, {"n": n})
        for group in handled:
            await until(is_settled(redis, key, group), timeout=20)
    for recorder in handled.values():
        assert sorted(message.data["n"] for message in recorder.messages) == list(range(600))
    await keeping.trim(key, Retention(max_len=50))
    assert redis.xlen(key) == 50


async def test_a_stream_that_cannot_be_trimmed_is_published_to(flavour, private_server, caplog):
    """Without the right to remove entries publishing goes on, and a warning says why."""
    server = private_server()
    with server.client() as redis:
        redis.execute_command(
            "ACL", "SETUSER", "few", "on", ">pw", "~*", "+@all", "-xdel", "-xtrim"
        )
        params = StepRedisPoolParams.from_url(server.url, username="few", password="pw")
        async with (
            flavour.pool(params) as pool,
            flavour.stream(pool, retention=Retention(max_len=10)) as stream,
        ):
            for n in range(150):
                await stream.publish_message("orders", {"n": n})
            await stream.publish_messages("orders", ({"n": n} for n in range(150)))
        assert redis.xlen("orders") == 300
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert {record.levelno for record in warnings} == {logging.WARNING}
    texts = [record.getMessage() for record in warnings]
    assert all("stream 'orders' was not trimmed to its retention: " in text for text in texts)
    assert 1 <= len(texts) <= 4


async def test_a_stream_that_is_not_there_yet(keeping, key, redis, caplog):
    """The first message to a stream is published like any other."""
    await keeping.publish_message(key, {"n": 1})
    assert redis.xlen(key) == 1
    assert not caplog.records


async def test_without_a_retention_publishing_trims_nothing(stream, key, redis):
    """A stream object that was given none leaves all entries."""
    await stream.publish_messages(key, ({"n": n} for n in range(1000)))
    for n in range(200):
        await stream.publish_message(key, {"n": n})
    assert redis.xlen(key) == 1200
