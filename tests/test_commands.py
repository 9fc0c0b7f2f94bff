"""Commands and replies, arguments, deadlines and delays: all that is computed without a server."""

import itertools
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from step_redis import ConfigurationError
from step_redis.arguments import check_name, check_type, check_whole, shown
from step_redis.backoff import delays
from step_redis.commands import (
    Pending,
    entry_id,
    expire,
    message_ids,
    new_deliveries,
    ping,
    read_deliveries,
    read_entries,
    read_pending,
    xack,
    xadd,
    xadd_options,
    xclaim,
    xgroup_create,
    xpending,
    xrange,
    xreadgroup,
)
from step_redis.deadline import Deadline, now

# --- Commands -------------------------------------------------------------------------------


def words(line):
    """Return a command as it is typed; numbers stay numbers."""
    return tuple(int(word) if word.isdecimal() else word for word in line.split())


def add(**options):
    wanted = {"max_len": None, "exact": False, "create": True} | options
    return xadd("orders", [b"n", b"1"], xadd_options(**wanted))


COMMANDS = {
    "PING": ping(),
    "EXPIRE orders 60": expire("orders", 60),
    "XGROUP CREATE orders billing $ MKSTREAM": xgroup_create("orders", "billing", "$"),
    "XACK orders billing 1-0 2-0": xack("orders", "billing", ["1-0", "2-0"]),
    "XREADGROUP GROUP billing w1 COUNT 10 STREAMS orders >": xreadgroup(
        "orders", "billing", "w1", count=10, block_ms=None
    ),
    "XREADGROUP GROUP billing w1 COUNT 1 BLOCK 1500 STREAMS orders >": xreadgroup(
        "orders", "billing", "w1", count=1, block_ms=1500
    ),
    "XREADGROUP GROUP billing w1 COUNT 5 STREAMS orders 3-1": xreadgroup(
        "orders", "billing", "w1", count=5, block_ms=None, start="3-1"
    ),
    "XPENDING orders billing - + 10": xpending("orders", "billing", count=10),
    "XPENDING orders billing - + 10 w1": xpending("orders", "billing", count=10, consumer="w1"),
    "XPENDING orders billing (12-3 + 10 w1": xpending(
        "orders", "billing", after=(12, 3), count=10, consumer="w1"
    ),
    "XPENDING orders billing IDLE 0 - + 10": xpending("orders", "billing", count=10, min_idle_ms=0),
    "XPENDING orders billing IDLE 500 (0-0 + 1 w1": xpending(
        "orders", "billing", after=(0, 0), count=1, consumer="w1", min_idle_ms=500
    ),
    "XRANGE orders 1-0 1-0": xrange("orders", "1-0"),
    "XCLAIM orders billing w1 500 1-0 2-0": xclaim(
        "orders", "billing", "w1", min_idle_ms=500, ids=["1-0", "2-0"]
    ),
}


@pytest.mark.parametrize(("line", "command"), COMMANDS.items(), ids=COMMANDS)
def test_commands(line, command):
    """Each command is what one would type."""
    assert command == words(line)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "XADD orders *"),
        ({"create": False}, "XADD orders NOMKSTREAM *"),
        ({"max_len": 1000}, "XADD orders MAXLEN ~ 1000 *"),
        ({"max_len": 1000, "exact": True}, "XADD orders MAXLEN = 1000 *"),
        ({"exact": True}, "XADD orders *"),
        (
            {"max_len": 1, "exact": True, "create": False},
            "XADD orders NOMKSTREAM MAXLEN = 1 *",
        ),
    ],
)
def test_xadd(options, line):
    """The server chooses the id; the stream is made and trimmed as told; fields come last."""
    assert add(**options) == (*words(line), b"n", b"1")


@pytest.mark.parametrize("block_ms", [0, -5])
def test_a_read_never_waits_for_ever(block_ms):
    """BLOCK 0 would: the shortest wait is a millisecond."""
    command = xreadgroup("orders", "billing", "w1", count=1, block_ms=block_ms)
    assert command[command.index("BLOCK") + 1] == 1


def test_ids_of_a_command_may_come_from_anywhere():
    """Ids of a dict or a generator are taken in their order."""
    assert xack("s", "g", {"2-0": 1, "1-0": 1})[3:] == ("2-0", "1-0")
    assert xclaim("s", "g", "c", min_idle_ms=0, ids=(id_ for id_ in ("2-0", "1-0")))[5:] == (
        "2-0",
        "1-0",
    )


# --- Ids ------------------------------------------------------------------------------------


@given(*(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)) for _ in range(2)))
def test_ids_compare_as_numbers(one, other):
    """The order of ids is that of the server, whatever their length."""
    first, second = (f"{milliseconds}-{sequence}" for milliseconds, sequence in (one, other))
    assert entry_id(first) == one
    assert (entry_id(first) < entry_id(second)) == (one < other)


def test_ids_do_not_compare_as_text():
    """9-0 comes before 10-0, and 1-9 before 1-10."""
    assert entry_id("9-0") < entry_id("10-0")
    assert entry_id("1-9") < entry_id("1-10")


@pytest.mark.parametrize(
    ("given_ids", "found"),
    [
        ("1700000000000-0", ["1700000000000-0"]),
        (["1-0", "2-0"], ["1-0", "2-0"]),
        (("1-0",), ["1-0"]),
        ({"1-0": "x"}, ["1-0"]),
        ((id_ for id_ in ("1-0", "2-0")), ["1-0", "2-0"]),
        ([], []),
    ],
)
def test_message_ids_are_one_or_several(given_ids, found):
    """One id, or any iterable of ids."""
    assert message_ids(given_ids) == found


@pytest.mark.parametrize(
    ("given_ids", "text"),
    [
        ("", "''"),
        ("1", "'1'"),
        ("1-", "'1-'"),
        ("1-*", "'1-*'"),
        (">", "'>'"),
        ("1-0 ", "'1-0 '"),
        ("1-0\n", r"'1-0\n'"),
        ("-1-0", "'-1-0'"),
        ("1-0-0", "'1-0-0'"),
        ("\u0661-\u0660", "'\u0661-\u0660'"),
        (b"1-0", "b'1-0'"),
        (None, "None"),
        (5, "5"),
        (["1-0", "x"], "'x'"),
        (["1-0", b"2-0"], "b'2-0'"),
        ([None], "None"),
        ([["1-0"]], "a value of type list"),
        ([{"id": "1-0", "data": {"iban": "DE"}}], "a value of type dict"),
        ("1-0" * 40, "a value of type str"),
        ({"id": "1-0", "data": {}}, "'id'"),
    ],
)
def test_what_is_no_id_is_refused(given_ids, text):
    """The error shows what stands where an id should, and what an id looks like."""
    with pytest.raises(ConfigurationError) as refused:
        message_ids(given_ids)
    assert str(refused.value) == f"message_id must be like '1700000000000-0'; got {text}"


# --- Replies --------------------------------------------------------------------------------

ENTRIES = [[b"1-0", [b"n", b"1"]], [b"1-1", [b"n", b"2", b"s", b""]]]
READ = [("1-0", [b"n", b"1"]), ("1-1", [b"n", b"2", b"s", b""])]


def test_entries():
    """XRANGE and XCLAIM give ids and fields; the fields stay bytes."""
    assert read_entries(ENTRIES) == READ


@pytest.mark.parametrize("reply", [[], None])
def test_no_entries(reply):
    """Nothing found is an empty list, or a nil."""
    assert read_entries(reply) == []


def test_deleted_entries_have_no_fields():
    """An entry that was deleted while it was pending has its id and a nil."""
    assert read_entries([[b"1-0", None], *ENTRIES[1:]]) == [("1-0", None), READ[1]]


def test_deleted_entries_of_an_old_server_are_left_out():
    """XCLAIM of 6.2 gives a nil for a deleted entry, which does not say which."""
    assert read_entries([None, ENTRIES[1], None]) == READ[1:]


@pytest.mark.parametrize(
    "reply",
    [[[b"orders", ENTRIES]], {b"orders": ENTRIES}],
    ids=["RESP2", "RESP3"],
)
def test_a_read_of_one_stream_in_either_protocol(reply):
    """A list of pairs in RESP2, a map in RESP3: the same entries."""
    assert read_deliveries(reply) == READ
    assert [(one.id, one.fields, one.count) for one in new_deliveries(reply)] == [
        ("1-0", [b"n", b"1"], 1),
        ("1-1", [b"n", b"2", b"s", b""], 1),
    ]


@pytest.mark.parametrize("reply", [None, [], {}, [[b"orders", []]], {b"orders": []}])
def test_a_read_that_brought_nothing(reply):
    """No reply in time, or a history without entries."""
    assert read_deliveries(reply) == []
    assert new_deliveries(reply) == []


@pytest.mark.parametrize(
    "reply",
    [[[b"orders", [[b"1-0", None]]]], {b"orders": [[b"1-0", None]]}],
    ids=["RESP2", "RESP3"],
)
def test_a_history_with_deleted_entries(reply):
    """A deleted entry keeps its place, without fields."""
    assert read_deliveries(reply) == [("1-0", None)]
    assert [(one.id, one.fields, one.count) for one in new_deliveries(reply)] == [("1-0", [], 1)]


def test_pending_messages():
    """XPENDING tells who has a message, since when, and how often it was delivered."""
    reply = [[b"1-0", b"w1", 1500, 1], [b"2-7", b"w2", 0, 12]]
    assert read_pending(reply) == [Pending("1-0", 1), Pending("2-7", 12)]
    assert read_pending([]) == []


# --- Arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["orders", "a", "größe", "🚆", "{eu}:orders", " ", "a\nb", "\x00"])
def test_names(name):
    """Whatever UTF-8 can say is a name."""
    check_name("stream_name", name)


@pytest.mark.parametrize("value", ["", None, 5, b"orders", ["orders"], {"iban": "DE"}, object])
def test_what_is_no_name_is_refused(value):
    """The error names the argument and shows the value, unless it may be a message."""
    with pytest.raises(ConfigurationError) as refused:
        check_name("stream_name", value)
    assert str(refused.value) == f"stream_name must be a str that is not empty; got {shown(value)}"


def test_only_short_plain_values_are_shown():
    """What may be a message put in the wrong place stays out of errors."""
    assert [shown(value) for value in (1, "a", None, True, b"a", 1.5)] == [
        *("1", "'a'", "None", "True", "b'a'", "1.5")
    ]
    assert shown({"iban": "DE"}) == "a value of type dict"
    assert shown("x" * 100) == "a value of type str"


def test_names_that_are_not_unicode_are_refused():
    """A lone surrogate cannot be sent; the error can be logged."""
    with pytest.raises(ConfigurationError, match="group_name is not valid Unicode") as refused:
        check_name("group_name", "a\ud800")
    str(refused.value).encode()


def test_types():
    """An argument is of its type or of a subclass, and otherwise refused by the names of both."""
    check_type("params", True, int)
    with pytest.raises(ConfigurationError, match=r"^params must be int; got str$"):
        check_type("params", "5", int)
    with pytest.raises(ConfigurationError, match=r"^params must be int; got NoneType$"):
        check_type("params", None, int)


@pytest.mark.parametrize("value", [1, 2, 10**30])
def test_whole_numbers(value):
    """A limit has no upper end."""
    check_whole("count", value, 1)


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None, math.inf, [1]])
def test_what_is_no_whole_number_is_refused(value):
    """The error names the argument, what it must be, and the value."""
    with pytest.raises(ConfigurationError) as refused:
        check_whole("count", value, 1)
    assert str(refused.value) == f"count must be a whole number of at least 1; got {shown(value)}"


def test_none_is_a_whole_number_only_where_it_means_something():
    """Where None is allowed, a refusal says what it would mean."""
    check_whole("wait_ms", None, 0, none="to wait for ever")
    with pytest.raises(ConfigurationError) as refused:
        check_whole("wait_ms", -1, 0, none="to wait for ever")
    assert str(refused.value) == (
        "wait_ms must be a whole number of at least 0, or None to wait for ever; got -1"
    )


# --- Deadlines and delays -------------------------------------------------------------------


def test_a_deadline_comes_nearer():
    """What is left of a deadline is less than it was, and never more."""
    deadline = Deadline.after(60)
    assert 59 < deadline.left() <= 60
    assert deadline.left() <= 60
    assert not deadline.passed


def test_never_is_no_deadline():
    """None means that nothing ends the wait."""
    never = Deadline.after(None)
    assert never.left() is None
    assert not never.passed


@pytest.mark.parametrize("seconds", [0, -5, -1e9])
def test_a_deadline_that_has_passed_leaves_nothing(seconds):
    """No time is left, and never less than none."""
    deadline = Deadline.after(seconds)
    assert deadline.passed
    assert deadline.left() == 0


def test_a_deadline_is_a_moment_of_the_monotonic_clock():
    """Setting the machine's clock moves no deadline."""
    assert now is time.monotonic
    assert Deadline(now() - 0.001).passed
    assert not Deadline(now() + 60).passed


def test_delays_double_up_to_half_a_second():
    """Each delay lies between half of its limit and all of it."""
    limits = [0.02, 0.04, 0.08, 0.16, 0.32, *[0.5] * 200]
    for delay, limit in zip(itertools.islice(delays(), len(limits)), limits, strict=True):
        assert limit / 2 <= delay <= limit


def test_delays_are_jittered():
    """Clients that failed together do not come back together."""
    assert len({tuple(itertools.islice(delays(), 3)) for _ in range(20)}) == 20
