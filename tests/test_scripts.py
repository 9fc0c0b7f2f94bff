"""The Lua scripts, one at a time: what they return and change, and how they fail.

How they work together whatever goes wrong is shown by `model/`.
"""

import pytest
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError

from step_redis import script_calls
from step_redis.keys import GroupKeys, dead_letter_stream, redrive_group
from step_redis.script_calls import read_messages, read_polled

LEASE_MS = 10_000
NAMES = ["ack", "copy", "ensure", "join", "leave", "park", "poll", "redrive"]
FENCED = ["ack", "copy", "leave", "park", "poll"]


class Group:
    """A group of a stream, and its consumers' calls."""

    def __init__(self, client, stream, name="g"):
        self.client, self.stream, self.name = client, stream, name
        self.keys = GroupKeys.of(stream, name)

    def run(self, call):
        return self.client.execute_command(*call.by_text())

    def call(self, name, consumer, ids=("1-0",)):
        """Make any script's call, to no special end."""
        about = (self.keys, self.name, consumer)
        target = dead_letter_stream(self.stream)
        calls = {
            "ack": lambda: script_calls.ack(*about, ids, delete=False),
            "copy": lambda: script_calls.copy(
                *about, ids[0], target=target, fields=[b"n", b"1"], delete=False
            ),
            "ensure": lambda: script_calls.ensure(self.keys, self.name, "replay"),
            "join": lambda: script_calls.join(*about, LEASE_MS, []),
            "leave": lambda: script_calls.leave(*about, []),
            "park": lambda: script_calls.park(*about, ids, delay_ms=0, kind="failed"),
            "poll": lambda: script_calls.poll(*about, LEASE_MS, count=10),
            "redrive": lambda: script_calls.redrive(self.keys, self.name, ids),
        }
        return calls[name]()

    def do(self, name, consumer, ids=("1-0",)):
        return self.run(self.call(name, consumer, ids))

    def make(self, *ids):
        for one in ids:
            self.client.xadd(self.stream, {"n": one}, id=one)
        self.client.xgroup_create(self.stream, self.name, "0", mkstream=True)

    def join(self, base="a"):
        consumer = consumer_name(base)
        assert self.do("join", consumer) == [b"OK"]
        return consumer

    def read(self, consumer):
        self.client.xreadgroup(self.name, consumer, {self.stream: ">"})

    def poll(self, consumer, **options):
        options = {"count": 10} | options
        call = script_calls.poll(self.keys, self.name, consumer, LEASE_MS, **options)
        code, *rest = self.run(call)
        assert code == b"OK"
        return read_polled([code, *rest])

    def pending(self):
        rows = self.client.xpending_range(self.stream, self.name, "-", "+", 100)
        return {
            row["message_id"].decode(): (row["consumer"].decode(), row["times_delivered"])
            for row in rows
        }


def consumer_name(base):
    return f"{base}~{base.encode().hex():0>16}"


@pytest.fixture
def group(redis, key):
    return Group(redis, key)


@pytest.fixture
def own_server(private_server):
    return private_server()


@pytest.fixture
def own_group(own_server):
    """A group with one message in the hands of one consumer, on a server of its own."""
    with own_server.client() as client:
        group = Group(client, "s")
        group.make("1-0")
        group.consumer = group.join()
        group.read(group.consumer)
        yield group


# How they fail.


@pytest.mark.parametrize("name", NAMES)
def test_out_of_memory(own_group, name):
    """A server without memory says so; it is not taken for a missing group."""
    own_group.client.config_set("maxmemory", 1)
    if name == "ensure":
        own_group.keys, own_group.name = GroupKeys.of("s", "other"), "other"
    before = own_group.pending() if name != "ensure" else None
    with pytest.raises(OutOfMemoryError):
        own_group.do(name, own_group.consumer)
    if before:
        assert own_group.pending() == before


@pytest.mark.parametrize("name", NAMES)
def test_read_only(own_group, name):
    """A replica says so; it is not taken for a missing group."""
    if name == "ensure":
        own_group.keys, own_group.name = GroupKeys.of("s", "other"), "other"
    own_group.client.replicaof("127.0.0.1", 1)
    with pytest.raises(ReadOnlyError):
        own_group.do(name, own_group.consumer)


@pytest.mark.parametrize("name", NAMES)
def test_not_a_stream(group, redis, key, name):
    """A key of another type is an error of its own, and left alone."""
    redis.set(key, "text")
    with pytest.raises(ResponseError, match=r"WRONGTYPE|wrong kind of value"):
        group.do(name, consumer_name("a"))
    assert redis.get(key) == b"text"


@pytest.mark.parametrize("name", [*FENCED, "join"])
def test_no_stream_and_no_group(group, redis, key, name):
    """Without the stream, or with another group on it only, the group is gone."""
    assert group.do(name, consumer_name("a")) == [b"GONE"]
    assert not redis.exists(key)
    redis.xgroup_create(key, "other", mkstream=True)
    assert group.do(name, consumer_name("a")) == [b"GONE"]


@pytest.mark.parametrize("name", FENCED)
def test_no_lease(group, name):
    """Without a lease nothing is changed."""
    group.make("1-0")
    consumer = consumer_name("a")
    group.read(consumer)
    before = group.pending()
    assert group.do(name, consumer) == [b"LOST"]
    assert group.pending() == before


def test_unknown_script(own_group):
    """A server that does not have a script says so, and gets it with the text."""
    call = own_group.call("poll", own_group.consumer)
    own_group.client.script_flush()
    with pytest.raises(NoScriptError):
        own_group.client.execute_command(*call.by_sha())
    assert own_group.run(call)[0] == b"OK"
    assert own_group.client.execute_command(*call.by_sha())[0] == b"OK"


# What they do.


def test_a_copy_needs_a_stream(group, redis, key):
    """Dead-lettering to a key of another type changes nothing."""
    group.make("1-0")
    consumer = group.join()
    group.read(consumer)
    dead = dead_letter_stream(key)
    redis.set(dead, "text")
    assert group.do("copy", consumer) == [b"TYPE"]
    assert group.pending() == {"1-0": (consumer, 1)}


def test_a_copy_says_when_it_was_delivered(group, redis, key):
    """First and last delivery are those of the whole group, over retries."""
    group.make("1-0")
    consumer = group.join()
    group.read(consumer)
    group.do("park", consumer)
    group.poll(consumer)
    call = script_calls.copy(
        *(group.keys, group.name, consumer, "1-0"),
        target=dead_letter_stream(key),
        fields=[b"n", b"1"],
        delivery_fields=("first", "last"),
        delete=False,
    )
    _, written = group.run(call)
    [(entry_id, fields)] = redis.xrange(dead_letter_stream(key))
    assert entry_id == written
    assert fields[b"n"] == b"1"
    copied_at = int(entry_id.split(b"-")[0])
    first, last = int(fields[b"first"]), int(fields[b"last"])
    # The server reads its clock now and then only: a moment may seem to be over before it began.
    assert copied_at - 10_000 < first <= last <= copied_at + 10
    assert group.pending() == {}


@pytest.mark.parametrize("ids", [("1-0",), ("1-0", "2-0", "9-0", "10-0", "11-0")])
def test_ids_of_others_are_refused(group, ids):
    """One id or many: those of others are named and left alone."""
    group.make("1-0", "2-0", "9-0", "10-0", "11-0")
    owner, other = group.join("a"), group.join("b")
    group.read(owner)
    group.client.xclaim(group.stream, group.name, other, 0, ["1-0", "10-0"])
    refused = [one.encode() for one in ids if one in {"1-0", "10-0"}]
    assert group.do("park", owner, ids) == [b"OK", *refused]
    assert group.do("ack", owner, ids) == [b"OK", *(one.encode() for one in ids)]
    assert group.pending()["1-0"] == (other, 2)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("failed", (2, 0, 0)),
        ("lost", (2, 1, 0)),
        ("interrupted", (2, 0, 1)),
        ("unstarted", (1, 0, 0)),
    ],
)
def test_what_a_delivery_counts_as(group, kind, expected):
    """Failed deliveries count, lost ones apart, those of nobody's work not at all."""
    group.make("1-0")
    consumer = group.join()
    group.read(consumer)
    about = (group.keys, group.name, consumer, ["1-0"])
    assert group.run(script_calls.park(*about, delay_ms=0, kind=kind)) == [b"OK"]
    [delivery] = group.poll(consumer).deliveries
    assert (delivery.count, delivery.lost, delivery.interrupted) == expected


def test_what_is_parked_waits(group):
    """A poll says in how many ms the next message is due, and does not bring it before."""
    group.make("1-0")
    consumer = group.join()
    group.read(consumer)
    about = (group.keys, group.name, consumer, ["1-0"])
    group.run(script_calls.park(*about, delay_ms=5000, kind="failed"))
    polled = group.poll(consumer)
    assert (polled.deliveries, polled.parked) == ([], 0)
    assert 4000 < polled.next_due_ms <= 5000


@pytest.mark.parametrize("base", ["a", "b~c"])
def test_the_dead_are_found(group, redis, base):
    """A name of ours without a lease is a dead consumer's, whether or not the record knows it."""
    group.make("1-0")
    dead, living = consumer_name(base), group.join("x")
    group.read(dead)
    polled = group.poll(living)
    assert (polled.parked, polled.removed) == (1, 1)
    assert [(one.id, one.count, one.lost) for one in polled.deliveries] == [("1-0", 2, 1)]
    names = {info["name"] for info in redis.xinfo_consumers(group.stream, group.name)}
    assert names == {b"_step:parked", living.encode()}


def test_consumers_of_others(group, redis):
    """Names of other forms are left alone unless a limit for idle messages is given."""
    group.make("1-0")
    consumer = group.join()
    group.read("theirs")
    assert group.poll(consumer).parked == 0
    for foreign_ms, parked in ((600_000, 0), (0, 1)):
        redis.zrem(group.keys.leases, "~sweep")
        assert group.poll(consumer, foreign_ms=foreign_ms).parked == parked
    names = {info["name"] for info in redis.xinfo_consumers(group.stream, group.name)}
    assert b"theirs" in names


def test_a_group_is_looked_through_once_in_a_while(group):
    """Not every poll looks for the dead."""
    group.make("1-0")
    living = group.join()
    group.poll(living)
    group.read(consumer_name("b"))
    assert group.poll(living).parked == 0


def test_leaving_hands_back(group):
    """What was being handled counts apart; what was not comes as if it had not been delivered."""
    group.make("1-0", "2-0")
    consumer, other = group.join("a"), group.join("b")
    group.read(consumer)
    assert group.run(script_calls.leave(group.keys, group.name, consumer, ["2-0"])) == [b"OK"]
    found = [(one.id, one.count, one.failures) for one in group.poll(other).deliveries]
    assert found == [("1-0", 1, 1), ("2-0", 2, 1)]


def test_moving_takes_everything_along(group):
    """A fresh name gets what older ones hold, and ends them; one of them must live."""
    group.make("1-0", "2-0")
    old, fresh = group.join("a"), consumer_name("b")
    group.read(old)
    join = script_calls.join(group.keys, group.name, fresh, LEASE_MS, [old])
    code, *rows = group.run(join)
    assert code == b"OK"
    assert [(one.id, one.count) for one in read_messages(rows)] == [("1-0", 1), ("2-0", 1)]
    assert group.do("ack", old) == [b"LOST"]
    assert group.run(script_calls.join(group.keys, "g", "third", LEASE_MS, [old])) == [b"LOST"]
    names = {info["name"] for info in group.client.xinfo_consumers(group.stream, group.name)}
    assert names == {b"_step:parked", fresh.encode()}


def test_a_new_group_voids_leases(group, redis, key):
    """A group that was destroyed and made again knows no lease of the old one."""
    group.make("1-0")
    consumer = group.join()
    redis.xgroup_destroy(key, group.name)
    redis.xgroup_create(key, group.name, "0")
    group.read(consumer)
    assert group.do("ack", consumer) == [b"LOST"]
    assert group.pending() == {"1-0": (consumer, 1)}


@pytest.mark.parametrize("name", ["park", "leave", "poll", "join"])
def test_deleted_entries_leave_nothing(group, redis, name):
    """Whatever comes upon a message whose entry was deleted, no record of it stays."""
    group.make("1-0", "2-0")
    other, consumer, fresh = group.join("x"), group.join("a"), consumer_name("b")
    group.read(consumer)
    redis.xclaim(group.stream, group.name, other, 0, ["2-0"])
    group.do("park", consumer)
    group.poll(consumer)
    if name == "poll":
        group.do("park", consumer)
    redis.xdel(group.stream, "1-0")
    if name == "join":
        group.run(script_calls.join(group.keys, group.name, fresh, LEASE_MS, [consumer]))
    else:
        group.do(name, consumer)
    # Redis 6.2 hands deleted entries on; whoever takes them removes them.
    group.poll(other)
    assert group.pending() == {"2-0": (other, 2)}
    assert not redis.exists(group.keys.attempts, group.keys.due)


def test_what_others_acknowledged_leaves_nothing(group, redis):
    """A plain XACK knows nothing of the records; they are cleared when nothing is pending."""
    group.make("1-0")
    consumer = group.join()
    group.read(consumer)
    group.do("park", consumer)
    redis.xack(group.stream, group.name, "1-0")
    assert group.poll(consumer).deliveries == []
    assert not redis.exists(group.keys.attempts, group.keys.due)


def test_records_outlive_the_stream(group, redis, key):
    """Keys beside a stream expire after it, and not at all if it does not."""
    group.make("1-0")
    consumer = group.join()
    group.read(consumer)
    redis.expire(key, 1000)
    about = (group.keys, group.name, consumer, ["1-0"])
    group.run(script_calls.park(*about, delay_ms=5000, kind="failed"))
    group.poll(consumer)
    for one in (group.keys.due, group.keys.attempts, group.keys.checkpoint):
        assert redis.ttl(one) > 1000
    assert redis.pttl(group.keys.leases) > LEASE_MS


# Groups made, and dead letters delivered again.


@pytest.mark.parametrize(
    ("policy", "mark", "expected"),
    [
        ("replay", None, "0"),
        ("latest", None, "$"),
        ("resume", None, "0"),
        ("resume", "=5-3", "5-3"),
        ("resume", "<5-3", "5-2"),
        ("resume", "<10-0", f"9-{2**64 - 1}"),
        ("resume", f"<5-{2**63}", f"5-{2**63 - 1}"),
        ("resume", "=99-0", "0"),
        ("resume", "nonsense", "0"),
    ],
)
def test_where_a_new_group_begins(group, redis, policy, mark, expected):
    """At the start, at the end, or after the checkpoint, unless that is above the stream's ids."""
    redis.xadd(group.stream, {"n": 1}, id="50-0")
    if mark is not None:
        redis.set(group.keys.checkpoint, mark)
    call = script_calls.ensure(group.keys, group.name, policy)
    assert group.run(call) == [b"MADE", expected.encode()]
    assert group.run(call) == [b"THERE"]


def test_a_missing_group_may_be_an_error(group, redis):
    """With `fail` nothing is made."""
    call = script_calls.ensure(group.keys, group.name, "fail")
    assert group.run(call) == [b"MISSING"]
    assert not redis.exists(group.stream)


@pytest.mark.parametrize(("leave_open", "mark"), [(True, b"<1-0"), (False, b"=2-0")])
def test_the_checkpoint(group, redis, leave_open, mark):
    """It says what the lowest unsettled message is, or what was delivered last."""
    group.make("1-0", "2-0")
    consumer = group.join()
    group.read(consumer)
    group.do("ack", consumer, ["2-0"] if leave_open else ["1-0", "2-0"])
    group.poll(consumer)
    assert redis.get(group.keys.checkpoint) == mark


def test_redriving(redis, key):
    """A dead letter comes again once, as if new, and is removed when it is settled."""
    dead = dead_letter_stream(key)
    lane = Group(redis, dead, redrive_group(key, "g"))
    redis.xadd(dead, {"n": 1}, id="7-0")
    call = script_calls.redrive(lane.keys, lane.name, ["7-0", "8-0"])
    assert lane.run(call) == [b"OK", b"7-0"]
    assert lane.run(call) == [b"OK"]
    consumer = lane.join()
    [delivery] = lane.poll(consumer, redrives=True).deliveries
    assert (delivery.id, delivery.count, delivery.lost) == ("7-0", 1, 0)
    about = (lane.keys, lane.name, consumer, ["7-0"])
    assert lane.run(script_calls.ack(*about, delete=True)) == [b"OK"]
    assert redis.xlen(dead) == 0
    assert not redis.exists(lane.keys.checkpoint)


def test_many_at_once(group, redis):
    """Thousands of messages are parked, moved and settled, in pages."""
    ids = [f"{number}-0" for number in range(1, 2301)]
    with redis.pipeline(transaction=False) as pipe:
        for one in ids:
            pipe.xadd(group.stream, {"n": 1}, id=one)
        pipe.xgroup_create(group.stream, group.name, "0")
        pipe.execute()
    consumer, fresh = group.join("a"), consumer_name("b")
    redis.xreadgroup(group.name, consumer, {group.stream: ">"}, count=3000)
    code, *rows = group.run(script_calls.join(group.keys, group.name, fresh, LEASE_MS, [consumer]))
    assert code == b"OK"
    assert [one.id for one in read_messages(rows)] == ids
    assert group.do("park", fresh, ids) == [b"OK"]
    redis.delete(group.keys.due)
    found = []
    while polled := group.poll(fresh, count=1000).deliveries:
        found += [one.id for one in polled]
        redis.zrem(group.keys.leases, "~sweep")
    assert sorted(found) == sorted(ids)
    assert group.do("ack", fresh, ids) == [b"OK"]
    assert group.pending() == {}


@pytest.mark.parametrize("apart", [1, 2, 500])
def test_acknowledging_costs_what_is_acknowledged(private_server, apart):
    """However much the caller holds between the messages, few lookups find them."""
    with private_server().client() as client:
        group = Group(client, "orders")
        ids = [f"{n}-0" for n in range(1, 2001)]
        group.make(*ids)
        consumer = group.join()
        group.read(consumer)
        client.config_resetstat()
        chosen = ids[::apart][:200]
        assert group.do("ack", consumer, chosen) == [b"OK"]
        calls = client.info("commandstats")["cmdstat_xpending"]["calls"]
        assert calls <= (1 if apart == 1 else len(chosen) + 2)
        assert client.xpending("orders", "g")["pending"] == len(ids) - len(chosen)
