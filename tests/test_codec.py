"""The wire format, which is frozen: what stands in an entry, and what it reads as."""

import collections
import datetime as dt
import enum
import json
import math
import struct
import sys
import types
from decimal import Decimal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from step_redis import plain_fields
from step_redis.codec import RESERVED_PREFIX, Codec, Decoded
from step_redis.errors import ConfigurationError, EncodeError
from step_redis.messages import Delivery, received_messages
from step_redis.plain_fields import encode_plain

SECRET = "hunter2"


class Text(str):
    __slots__ = ()


class Count(enum.IntEnum):
    ONE = 1


@attrs.frozen
class Opaque:
    """A type that JSON does not know; its repr shows what it holds."""

    value: str = SECRET


def same(one, other):
    """Whether two values are equal in type too, all the way down, order of keys included."""
    if type(one) is not type(other):
        return False
    if type(one) is float:
        return struct.pack("d", one) == struct.pack("d", other)
    if type(one) is list:
        return len(one) == len(other) and all(map(same, one, other))
    if type(one) is dict:
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    return one == other


def nested(depth, kind=list):
    """Return a value of so many lists or dicts, one in the other."""
    value = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def circular():
    value = []
    value.append(value)
    return value


def why_refused(message):
    """Return the text of the refusal, or None if the message can be stored."""
    try:
        Codec().encode(message)
    except EncodeError as error:
        return str(error)
    return None


def pairs(fields):
    return dict(zip(fields[::2], fields[1::2], strict=True))


# --- The frozen format ----------------------------------------------------------------------

GOLDEN = {
    "empty": ({}, {}, [b"_step:t", b"{}"]),
    "str": ({"name": "Ada"}, {}, [b"name", b"Ada"]),
    "empty str": ({"name": ""}, {}, [b"name", b""]),
    "empty key": ({"": "x"}, {}, [b"", b"x"]),
    "not ASCII": (
        {"größe": "日本 🚆"},
        {},
        [b"gr\xc3\xb6\xc3\x9fe", b"\xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x9a\x86"],
    ),
    "str that looks like JSON": ({"n": "1", "b": "true"}, {}, [b"n", b"1", b"b", b"true"]),
    "NUL and line ends": ({"t": "a\x00b\r\nc"}, {}, [b"t", b"a\x00b\r\nc"]),
    "int": ({"n": 42}, {}, [b"n", b"42", b"_step:t", b'{"n":"j"}']),
    "big int": (
        {"n": -(2**70)},
        {},
        [b"n", b"-1180591620717411303424", b"_step:t", b'{"n":"j"}'],
    ),
    "float": (
        {"a": 1.0, "b": -0.0, "c": 0.1, "d": 1e300},
        {},
        [
            *(b"a", b"1.0", b"b", b"-0.0", b"c", b"0.1", b"d", b"1e+300"),
            *(b"_step:t", b'{"a":"j","b":"j","c":"j","d":"j"}'),
        ],
    ),
    "bool and None": (
        {"yes": True, "no": False, "none": None},
        {},
        [
            *(b"yes", b"true", b"no", b"false", b"none", b"null"),
            *(b"_step:t", b'{"yes":"j","no":"j","none":"j"}'),
        ],
    ),
    "bytes": (
        {"raw": b"\x00\xff", "utf8": b"abc", "none": b""},
        {},
        [
            *(b"raw", b"\x00\xff", b"utf8", b"abc", b"none", b""),
            *(b"_step:t", b'{"raw":"b","utf8":"b","none":"b"}'),
        ],
    ),
    "list and dict": (
        {"l": [1, "a", [], {}], "d": {"x": None, "y": {"z": [1.5, True]}}},
        {},
        [
            *(b"l", b'[1,"a",[],{}]', b"d", b'{"x":null,"y":{"z":[1.5,true]}}'),
            *(b"_step:t", b'{"l":"j","d":"j"}'),
        ],
    ),
    "JSON that is not ASCII": (
        {"l": ["é", '"', "\x00"]},
        {},
        [b"l", b'["\xc3\xa9","\\"","\\u0000"]', b"_step:t", b'{"l":"j"}'],
    ),
    "key that needs quotes": (
        {'a"ü': 1},
        {},
        [b'a"\xc3\xbc', b"1", b"_step:t", b'{"a\\"\xc3\xbc":"j"}'],
    ),
    "only what is not str is noted": (
        {"id": "7", "n": 7, "name": "Ada", "raw": b"7"},
        {},
        [
            *(b"id", b"7", b"n", b"7", b"name", b"Ada", b"raw", b"7"),
            *(b"_step:t", b'{"n":"j","raw":"b"}'),
        ],
    ),
    "headers": (
        {"name": "Ada"},
        {"trace": "00-ab", "größe": "", "": "nameless"},
        [
            *(b"name", b"Ada", b"_step:h:trace", b"00-ab"),
            *(b"_step:h:gr\xc3\xb6\xc3\x9fe", b"", b"_step:h:", b"nameless"),
        ],
    ),
    "types before headers": (
        {"n": 1},
        {"t": "{}"},
        [b"n", b"1", b"_step:t", b'{"n":"j"}', b"_step:h:t", b"{}"],
    ),
    "empty with headers": ({}, {"a": "b"}, [b"_step:t", b"{}", b"_step:h:a", b"b"]),
    "prefix in the middle": (
        {"a_step:t": "x", "_step": "y"},
        {},
        [b"a_step:t", b"x", b"_step", b"y"],
    ),
}


@pytest.mark.parametrize(("message", "headers", "fields"), GOLDEN.values(), ids=GOLDEN)
class TestFrozenFormat:
    def test_encodes_to_exactly_these_fields(self, message, headers, fields):
        """What this version writes is what every version writes, byte for byte."""
        assert Codec().encode(message, headers) == fields

    def test_decodes_from_exactly_these_fields(self, message, headers, fields):
        """What any version wrote reads as what was published, types and order included."""
        decoded = Codec().decode(fields)
        assert decoded.error is None
        assert same(decoded.data, message)
        assert same(decoded.headers, headers)


def test_order_of_fields_is_that_of_the_message():
    """Messages of the same shape have the same order of fields, which the server shares."""
    one = Codec().encode({"b": 1, "a": "x", "c": None}, {"h": "1"})
    other = Codec().encode({"b": 2, "a": "y", "c": []}, {"h": "2"})
    assert one[::2] == other[::2] == [b"b", b"a", b"c", b"_step:t", b"_step:h:h"]


def test_values_are_readable_with_any_client():
    """A str is its text, JSON is JSON: nothing is wrapped, escaped or packed."""
    entry = pairs(Codec().encode({"name": "Ada", "tags": ["x", 1], "raw": b"\xff"}))
    assert entry[b"name"] == b"Ada"
    assert json.loads(entry[b"tags"]) == ["x", 1]
    assert entry[b"raw"] == b"\xff"
    assert json.loads(entry[b"_step:t"]) == {"tags": "j", "raw": "b"}


def test_any_mapping_is_a_message():
    """A message may be any mapping; it comes back as a dict."""
    message = types.MappingProxyType(collections.OrderedDict(b=1, a="x"))
    headers = types.MappingProxyType({"h": "1"})
    decoded = Codec().decode(Codec().encode(message, headers))
    assert decoded == Decoded(data={"b": 1, "a": "x"}, headers={"h": "1"})


def test_encoding_leaves_the_message_alone():
    """Neither the message nor what it holds is changed or shared with what is decoded."""
    inner = [1, {"a": 2}]
    message = {"l": inner}
    decoded = Codec().decode(Codec().encode(message))
    assert message == {"l": [1, {"a": 2}]}
    assert message["l"] is inner
    assert decoded.data["l"] is not inner


# --- Round trips ----------------------------------------------------------------------------

text = st.text()  # without lone surrogates
any_text = st.text(st.characters(codec=None))  # with them
keys = text.filter(lambda key: not key.startswith(RESERVED_PREFIX))
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**4000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20
)
messages = st.dictionaries(keys, json_values | st.binary())
header_sets = st.dictionaries(keys, text)

strange = st.recursive(
    scalars
    | any_text
    | st.floats()
    | st.binary()
    | st.sampled_from(
        [
            bytearray(b"x"),
            memoryview(b"x"),
            (),
            (1, 2),
            {1, 2},
            frozenset(),
            Decimal("1.5"),
            dt.date(2026, 1, 1),
            Text("text"),
            Count.ONE,
            Opaque(),
            object,
            len,
            1j,
            ...,
        ]
    ),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(any_text | st.integers() | st.none() | st.booleans(), inner)
        | st.dictionaries(text, inner).map(collections.OrderedDict)
    ),
    max_leaves=8,
)
strange_keys = any_text | st.sampled_from(
    [1, None, True, b"x", 1.5, ("a",), Text("key"), "_step:t"]
)


@given(message=messages, headers=header_sets)
def test_what_is_stored_comes_back_exactly(message, headers):
    """Every storable message comes back with the same values, types, signs and order."""
    decoded = Codec().decode(Codec().encode(message, headers))
    assert decoded.error is None
    assert same(decoded.data, message)
    assert same(decoded.headers, headers)


@given(message=messages, headers=header_sets)
def test_foreign_bytes_does_not_touch_own_entries_with_types(message, headers):
    """An entry with ``_step:t`` reads the same, whatever ``foreign`` says."""
    fields = Codec().encode({**message, "n": 1}, headers)
    assert Codec(foreign="bytes").decode(fields) == Codec().decode(fields)


@given(message=st.dictionaries(strange_keys, strange, max_size=4))
def test_whatever_cannot_come_back_is_refused(message):
    """Any mapping of any objects is stored exactly or refused: there is nothing in between."""
    if why_refused(message) is None:
        decoded = Codec().decode(Codec().encode(message))
        assert decoded.error is None
        assert same(decoded.data, message)


@given(key=keys, value=strange)
def test_a_refusal_names_the_key(key, value):
    """Whichever value of a message is refused, the error names its key."""
    refusal = why_refused({"good": 1, key: value})
    assert refusal is None or f"key {key!r}" in refusal


def test_one_and_true_and_one_point_zero_stay_apart():
    """Values that Python calls equal keep their types."""
    message = {"values": [1, True, 1.0, 0, False, 0.0, -0.0], "one": 1, "true": True, "1.0": 1.0}
    assert same(Codec().decode(Codec().encode(message)).data, message)


def test_containers_nest_a_hundred_deep():
    """Lists and dicts nest up to 100 levels."""
    message = {"list": nested(100), "dict": nested(100, dict)}
    assert same(Codec().decode(Codec().encode(message)).data, message)


# --- What is refused ------------------------------------------------------------------------

REFUSED = {
    "tuple": ((1, SECRET), "tuple"),
    "set": ({SECRET}, "set"),
    "frozenset": (frozenset({SECRET}), "frozenset"),
    "bytearray": (bytearray(SECRET, "ascii"), "bytearray"),
    "memoryview": (memoryview(SECRET.encode()), "memoryview"),
    "str subclass": (Text(SECRET), "Text"),
    "int subclass": (Count.ONE, "Count"),
    "dict subclass": (collections.OrderedDict(a=SECRET), "OrderedDict"),
    "Decimal": (Decimal("1.5"), "Decimal"),
    "date": (dt.date(2026, 1, 1), "date"),
    "object": (Opaque(), "Opaque"),
    "class": (Opaque, "type"),
    "bytes in a list": ([SECRET, SECRET.encode()], "bytes"),
    "bytes in a dict": ({"a": {"b": SECRET.encode()}}, "bytes"),
    "tuple in a list": ([(SECRET,)], "tuple"),
    "str subclass in a list": ([Text(SECRET)], "Text"),
    "key of a nested dict": ([{1: SECRET}], "int"),
    "None as a key of a nested dict": ({None: SECRET}, "NoneType"),
    "str subclass as a key of a nested dict": ({Text("a"): SECRET}, "Text"),
    "NaN": (math.nan, "NaN"),
    "infinity": (math.inf, "infinity"),
    "minus infinity": (-math.inf, "infinity"),
    "NaN in a list": ([SECRET, math.nan], "NaN"),
    "int of too many digits": (10**5000, "digits"),
    "int of too many digits in a list": ([SECRET, 10**5000], "digits"),
    "lone surrogate": (SECRET + "\ud800", "surrogate"),
    "lone surrogate in a list": ([SECRET + "\udfff"], "surrogate"),
    "lone surrogate in a nested key": ({SECRET + "\ud800": 1}, "surrogate"),
    "too deep a list": (nested(101), "deeper than 100"),
    "too deep a dict": (nested(101, dict), "deeper than 100"),
    "far too deep": (nested(100_000), "deeper than 100"),
    "circular": (circular(), "deeper than 100"),
}


@pytest.mark.parametrize(("value", "why"), REFUSED.values(), ids=REFUSED)
def test_refuses_what_would_not_come_back(value, why):
    """The refusal names the key and the type or the reason, and never shows the value."""
    with pytest.raises(EncodeError) as refused:
        Codec().encode({"good": "x", "customer": value})
    assert "key 'customer'" in str(refused.value)
    assert why in str(refused.value)
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(refused.value)


@pytest.mark.parametrize("key", [1, None, True, 1.5, b"bytes", ("a", 1), Text("key")], ids=repr)
def test_refuses_keys_that_are_not_str(key):
    """A key of another type would come back as str; the refusal names the key and its type."""
    with pytest.raises(EncodeError) as refused:
        Codec().encode({key: SECRET})
    assert repr(key) in str(refused.value)
    assert f"type {type(key).__name__}" in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("key", ["_step:", "_step:t", "_step:h:trace", "_step:new"])
def test_refuses_keys_with_the_reserved_prefix(key):
    """What begins with ``_step:`` belongs to the format."""
    with pytest.raises(EncodeError, match="reserved prefix _step:") as refused:
        Codec().encode({key: SECRET})
    assert repr(key) in str(refused.value)
    assert SECRET not in str(refused.value)


def test_refuses_a_key_with_a_lone_surrogate():
    """A key that UTF-8 cannot store is named in a text that can be logged."""
    with pytest.raises(EncodeError, match="surrogate") as refused:
        Codec().encode({"a\ud800": SECRET})
    assert r"'a\ud800'" in str(refused.value)
    str(refused.value).encode()


@pytest.mark.parametrize(
    "message",
    [None, [("a", SECRET)], SECRET, SECRET.encode(), 5, {SECRET}],
    ids=lambda message: type(message).__name__,
)
def test_refuses_a_message_that_is_no_mapping(message):
    """A message is a mapping; the refusal names the type that was given."""
    with pytest.raises(EncodeError, match=f"got {type(message).__name__}") as refused:
        Codec().encode(message)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("headers", "name", "types"),
    [
        ({"trace": 5}, "trace", "str to int"),
        ({"trace": None}, "trace", "str to NoneType"),
        ({"trace": SECRET.encode()}, "trace", "str to bytes"),
        ({"trace": Text(SECRET)}, "trace", "str to Text"),
        ({7: SECRET}, 7, "int to str"),
        ({b"trace": SECRET}, b"trace", "bytes to str"),
        ({None: SECRET}, None, "NoneType to str"),
    ],
)
def test_refuses_headers_that_are_not_str(headers, name, types):
    """Headers are str to str; the refusal names the header and both types."""
    with pytest.raises(EncodeError) as refused:
        Codec().encode({"a": "x"}, headers)
    assert f"header {name!r}" in str(refused.value)
    assert types in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("name", ["_step:", "_step:t", "_step:dead:stream"])
def test_refuses_headers_with_the_reserved_prefix(name):
    """Provenance of dead letters travels in such headers; only the library writes it."""
    with pytest.raises(EncodeError, match="reserved prefix") as refused:
        Codec().encode({"a": "x"}, {name: SECRET})
    assert repr(name) in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("headers", [{"trace": SECRET + "\ud800"}, {"trace\ud800": SECRET}])
def test_refuses_headers_with_a_lone_surrogate(headers):
    """Headers that UTF-8 cannot store are refused, by name."""
    with pytest.raises(EncodeError, match=r"header 'trace.*surrogate") as refused:
        Codec().encode({}, headers)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "headers",
    [[("trace", SECRET)], SECRET, 5, [], ""],
    ids=lambda headers: f"{type(headers).__name__} {'empty' * (not headers)}",
)
def test_refuses_headers_that_are_no_mapping(headers):
    """Headers are a mapping or None; the refusal names the type that was given."""
    with pytest.raises(EncodeError, match=f"headers .*{type(headers).__name__}") as refused:
        Codec().encode({"a": "x"}, headers)
    assert SECRET not in str(refused.value)


# --- default= -------------------------------------------------------------------------------


def convert(value):
    """Turn what a program might hold into what can be stored."""
    match value:
        case dt.date():
            return value.isoformat()
        case Decimal():
            return str(value)
        case bytearray():
            return bytes(value)
        case tuple() | set():
            return list(value)
        case Opaque():
            return {"value": value.value, "as": (1, 2)}
        case _:
            raise TypeError(f"no idea what {type(value).__name__} is")


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (dt.date(2026, 1, 2), "2026-01-02"),
        (bytearray(b"\xff"), b"\xff"),
        ((1, "a"), [1, "a"]),
        (
            [dt.date(2026, 1, 2), {"price": Decimal("1.50")}],
            ["2026-01-02", {"price": "1.50"}],
        ),
        ({"deep": [[(1, (2,))]]}, {"deep": [[[1, [2]]]]}),
        (Opaque(), {"value": SECRET, "as": [1, 2]}),
    ],
    ids=["to str", "to bytes", "to list", "nested", "tuple in tuple", "result converted in turn"],
)
def test_default_turns_other_types_into_storable_ones(value, stored):
    """``default`` is asked for every value of another type, at any depth, and of its results."""
    codec = Codec(default=convert)
    assert same(codec.decode(codec.encode({"v": value})).data, {"v": stored})


def test_a_str_from_default_is_stored_as_text():
    """What ``default`` turns into a str is as readable as any str."""
    assert Codec(default=str).encode({"price": Decimal("1.50")}) == [b"price", b"1.50"]


@given(message=messages)
def test_default_is_not_asked_for_what_can_be_stored(message):
    """``default`` cannot change what is storable already."""

    def forbidden(value):
        raise AssertionError(value)

    assert Codec(default=forbidden).encode(message) == Codec().encode(message)


def test_what_default_raises_reaches_the_caller():
    """An exception of ``default`` is the user's own and stays as it is."""
    with pytest.raises(TypeError, match="no idea what complex is"):
        Codec(default=convert).encode({"v": 1j})


@pytest.mark.parametrize(
    "value", [Opaque(), [Opaque()], {"a": Opaque()}], ids=["top", "list", "dict"]
)
def test_default_that_gives_the_same_type_back_is_refused(value):
    """``default=lambda value: value`` means that the value cannot be converted."""
    with pytest.raises(EncodeError, match=r"key 'v' .*Opaque") as refused:
        Codec(default=lambda value: value).encode({"v": value})
    assert SECRET not in str(refused.value)


def test_default_that_never_ends_is_refused():
    """Conversions that lead from type to type without end are refused, not followed."""
    other = types.SimpleNamespace()
    endless = Codec(default=lambda value: other if isinstance(value, Opaque) else Opaque())
    with pytest.raises(EncodeError, match="key 'v'"):
        endless.encode({"v": Opaque()})


def test_default_that_wraps_without_end_is_refused():
    """Each wrapping counts as a level of nesting."""
    with pytest.raises(EncodeError, match="key 'v' nests deeper than 100"):
        Codec(default=lambda value: [value]).encode({"v": Opaque()})


@pytest.mark.parametrize("value", [(), [()]], ids=["top", "nested"])
@pytest.mark.parametrize(
    ("result", "why"),
    [("\ud800", "surrogate"), (math.nan, "NaN"), (Text("text"), "Text"), ({1: 2}, "int")],
)
def test_what_default_gives_is_checked_as_well(value, result, why):
    """A result of ``default`` that would not come back is refused like any value."""
    codec = Codec(default=lambda value: result if type(value) is tuple else value)
    with pytest.raises(EncodeError, match=f"key 'v' .*{why}"):
        codec.encode({"v": value})


def test_bytes_from_default_cannot_be_nested():
    """In a list there is no place for bytes, wherever they come from."""
    with pytest.raises(EncodeError, match=r"key 'v' .*bytes"):
        Codec(default=lambda value: bytes(value)).encode({"v": [bytearray(b"x")]})  # noqa: PLW0108


# --- Entries of other programs --------------------------------------------------------------

FOREIGN = [b"name", b"Ada", b"caf\xc3\xa9", b"\xe2\x82\xac", b"raw", b"\xff\xfe", b"\xff", b"x"]


def test_foreign_entries_read_as_text():
    """An entry of another program reads as str, and as bytes where it is not UTF-8."""
    decoded = Codec().decode(FOREIGN)
    data = {"name": "Ada", "café": "€", "raw": b"\xff\xfe", b"\xff": "x"}
    assert decoded == Decoded(data=data, headers={}, error=None)


def test_foreign_entries_read_as_bytes_if_wanted():
    """``foreign="bytes"`` leaves all names and values as they are."""
    decoded = Codec(foreign="bytes").decode(FOREIGN)
    assert decoded == Decoded(data=pairs(FOREIGN), headers={}, error=None)


@pytest.mark.parametrize("foreign", ["str", "bytes"])
def test_numbers_of_other_programs_stay_text(foreign):
    """Nothing is guessed: what no type says is a number is text."""
    decoded = Codec(foreign=foreign).decode([b"n", b"42"])
    assert decoded.data in ({"n": "42"}, {b"n": b"42"})


def test_other_programs_can_write_typed_messages():
    """Whoever writes ``_step:t``, wherever in the entry and however spaced, is understood."""
    decoded = Codec().decode([b"_step:t", b' { "n" : "j" } ', b"n", b" [1, 2.50] ", b"s", b"x"])
    assert decoded == Decoded(data={"n": [1, 2.5], "s": "x"}, headers={}, error=None)


def test_headers_can_be_added_to_foreign_entries():
    """Headers are taken out of the data of every entry that has them."""
    decoded = Codec().decode([b"a", b"1", b"_step:h:trace", b"00-ab"])
    assert decoded == Decoded(data={"a": "1"}, headers={"trace": "00-ab"}, error=None)


def test_reserved_fields_of_later_versions_are_left_out():
    """A reserved field that this version does not know is no part of the message."""
    decoded = Codec().decode([b"a", b"1", b"_step:later", b"\xff"])
    assert decoded == Decoded(data={"a": "1"}, headers={}, error=None)


@pytest.mark.parametrize("foreign", ["text", "STR", None, b"str", []])
def test_foreign_is_str_or_bytes(foreign):
    """Another choice is refused when the codec is made."""
    with pytest.raises(ConfigurationError, match="foreign must be 'str' or 'bytes'") as refused:
        Codec(foreign=foreign)
    assert repr(foreign) in str(refused.value)


# --- Damaged entries ------------------------------------------------------------------------

DEEP = b"[" * 200_000 + b"]" * 200_000

DAMAGED = {
    "types: not JSON": ([b"n", b"1", b"_step:t", b"{n:j}"], "_step:t is not valid JSON"),
    "types: empty": ([b"n", b"1", b"_step:t", b""], "_step:t is not valid JSON"),
    "types: more than JSON": ([b"n", b"1", b"_step:t", b"{}{}"], "_step:t is not valid JSON"),
    "types: with a byte order mark": ([b"_step:t", b"\xef\xbb\xbf{}"], "_step:t is not valid JSON"),
    "types: list": ([b"n", b"1", b"_step:t", b'["n"]'], "_step:t is not a JSON object"),
    "types: null": ([b"n", b"1", b"_step:t", b"null"], "_step:t is not a JSON object"),
    "types: str": ([b"n", b"1", b"_step:t", b'"n"'], "_step:t is not a JSON object"),
    "types: NaN": ([b"n", b"1", b"_step:t", b"NaN"], "_step:t is not valid JSON"),
    "types: not UTF-8": ([b"n", b"1", b"_step:t", b'{"n":"\xff"}'], "_step:t is not valid UTF-8"),
    "types: too deep": ([b"n", b"1", b"_step:t", DEEP], "nests too deeply"),
    "types: unknown kind": ([b"n", b"1", b"_step:t", b'{"n":"z"}'], "unknown type to 'n'"),
    "types: kind in capitals": ([b"n", b"1", b"_step:t", b'{"n":"J"}'], "unknown type to 'n'"),
    "types: kind null": ([b"n", b"1", b"_step:t", b'{"n":null}'], "unknown type to 'n'"),
    "types: kind list": ([b"n", b"1", b"_step:t", b'{"n":["j"]}'], "unknown type to 'n'"),
    "types: kind dict": ([b"n", b"1", b"_step:t", b'{"n":{}}'], "unknown type to 'n'"),
    "types: field is missing": ([b"n", b"1", b"_step:t", b'{"m":"j"}'], "names 'm', which"),
    "types: names a header": ([b"_step:h:a", b"1", b"_step:t", b'{"_step:h:a":"j"}'], "names"),
    "types: names itself": ([b"_step:t", b'{"_step:t":"j"}'], "names '_step:t', which"),
    "types: lone surrogate": ([b"n", b"1", b"_step:t", b'{"\\ud800":"j"}'], r"names '\ud800'"),
    "value: not JSON": ([b"n", b"one", b"_step:t", b'{"n":"j"}'], "field 'n' is not valid JSON"),
    "value: empty": ([b"n", b"", b"_step:t", b'{"n":"j"}'], "field 'n' is not valid JSON"),
    "value: cut off": ([b"n", b"[1,", b"_step:t", b'{"n":"j"}'], "field 'n' is not valid JSON"),
    "value: NaN": ([b"n", b"NaN", b"_step:t", b'{"n":"j"}'], "field 'n' is not valid JSON"),
    "value: Infinity": ([b"n", b"[Infinity]", b"_step:t", b'{"n":"j"}'], "field 'n' is not"),
    "value: -Infinity": ([b"n", b"-Infinity", b"_step:t", b'{"n":"j"}'], "field 'n' is not"),
    "value: too deep": ([b"n", DEEP, b"_step:t", b'{"n":"j"}'], "nests too deeply"),
    "value: too many digits": ([b"n", b"9" * 5000, b"_step:t", b'{"n":"j"}'], "more digits than"),
    "value: JSON not UTF-8": (
        [b"n", b'"\xff"', b"_step:t", b'{"n":"j"}'],
        "field 'n' is not valid",
    ),
    "value: text not UTF-8": ([b"s", b"\xff", b"_step:t", b"{}"], "field 's' is not valid UTF-8"),
    "name: not UTF-8": ([b"\xff", b"x", b"_step:t", b"{}"], "name of a field is not valid UTF-8"),
    "header: name not UTF-8": ([b"_step:h:\xff", b"x"], "name of a header is not valid UTF-8"),
    "header: text not UTF-8": ([b"_step:h:trace", b"\xff"], "trace' is not valid UTF-8"),
}


@pytest.mark.parametrize("foreign", ["str", "bytes"])
@pytest.mark.parametrize(("fields", "why"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_entries_are_delivered_with_their_error(fields, why, foreign):
    """An entry that cannot be decoded says why and gives its raw fields, without headers."""
    decoded = Codec(foreign=foreign).decode(fields)
    assert decoded.error is not None
    assert why in decoded.error
    assert decoded.data == pairs(fields)
    assert decoded.headers == {}


@pytest.mark.parametrize(
    "fields",
    [
        [b"n", b'{"password": hunter2}', b"_step:t", b'{"n":"j"}'],
        [b"n", b"hunter2\xff", b"_step:t", b"{}"],
        [b"_step:t", b"hunter2"],
        [b"_step:h:trace", b"hunter2\xff"],
    ],
)
def test_the_error_of_a_damaged_entry_does_not_quote_it(fields):
    """What stands in an entry is data, and errors are logged."""
    error = Codec().decode(fields).error
    assert error is not None
    assert SECRET not in error
    error.encode()


raw_names = st.binary() | st.sampled_from(
    [b"n", b"_step:t", b"_step:h:a", b"_step:h:\xff", b"_step:x"]
)
raw_values = (
    st.binary()
    | st.sampled_from([b"{}", b"[]", b"NaN", b'{"n":"j"}', b'{"n":"b"}', b'{"n":1}', b"[" * 9000])
    | json_values.map(json.dumps).map(str.encode)
)
entries = st.lists(st.tuples(raw_names, raw_values)).map(
    lambda entry: [part for pair in entry for part in pair]
)


@given(fields=entries, foreign=st.sampled_from(["str", "bytes"]))
def test_decoding_never_raises(fields, foreign):
    """Whatever stands in an entry, it reads as a message, or as its raw fields and an error."""
    decoded = Codec(foreign=foreign).decode(fields)
    assert all(type(text) is str for pair in decoded.headers.items() for text in pair)
    if decoded.error is None:
        own = [name for name in pairs(fields) if not name.startswith(b"_step:")]
        assert len(decoded.data) == len(own)
    else:
        assert decoded.data == pairs(fields)
        decoded.error.encode()


@given(message=messages, cut=st.data())
def test_an_entry_with_one_byte_changed_never_breaks_the_reader(message, cut):
    """Damage of one byte anywhere gives another message or an error, never an exception."""
    fields = Codec().encode({**message, "n": [1]})
    at = cut.draw(st.sampled_from([n for n, part in enumerate(fields) if part]))
    place = cut.draw(st.integers(0, len(fields[at]) - 1))
    damaged = bytearray(fields[at])
    damaged[place] = cut.draw(st.integers(0, 255))
    fields[at] = bytes(damaged)
    assert isinstance(Codec().decode(fields), Decoded)


@pytest.mark.skipif(sys.get_int_max_str_digits() != 4300, reason="the limit was changed")
@pytest.mark.parametrize(("digits", "fits"), [(4300, True), (4301, False)])
def test_ints_are_stored_up_to_what_a_reader_can_read(digits, fits):
    """An int is refused from the digit on that ``json`` could not read again."""
    value = 10 ** (digits - 1)
    if fits:
        assert Codec().decode(Codec().encode({"n": value})).data == {"n": value}
    else:
        with pytest.raises(EncodeError, match="get_int_max_str_digits"):
            Codec().encode({"n": value})


# --- The short way and the careful one ------------------------------------------------------


def outcome(encode, message):
    """Return what encoding gives, or the text of the refusal."""
    try:
        return encode(message)
    except EncodeError as error:
        return str(error)


@given(
    message=messages
    | st.dictionaries(keys, st.floats() | any_text | st.integers())
    | st.dictionaries(strange_keys, strange)
    | strange
)
def test_both_ways_encode_the_same(message):
    """The short way gives the same bytes as the careful one, or leaves the message to it."""
    assert outcome(Codec().encode, message) == outcome(Codec().encode_carefully, message)


@given(message=st.dictionaries(keys, text | st.binary() | scalars))
def test_the_short_way_encodes_flat_messages(message):
    """Texts, bytes and JSON scalars need no careful way, and give its bytes."""
    assert encode_plain(message) == Codec().encode_carefully(message)


@given(fields=entries, foreign=st.sampled_from(["str", "bytes"]))
def test_both_ways_decode_the_same(fields, foreign):
    """Whatever stands in an entry, also from others and damaged, reads the same both ways."""
    codec = Codec(foreign=foreign)
    short, careful = codec.decode(fields), codec.decode_carefully(fields)
    assert same(short.data, careful.data)
    assert (short.headers, short.error) == (careful.headers, careful.error)


@given(message=messages, headers=header_sets, order=st.randoms(use_true_random=False))
def test_both_ways_decode_own_entries_the_same(message, headers, order):
    """Also if another writer has put the fields into another order."""
    fields = Codec().encode(message, headers)
    shuffled = list(pairs(fields).items())
    order.shuffle(shuffled)
    fields = [part for pair in shuffled for part in pair]
    short, careful = Codec().decode(fields), Codec().decode_carefully(fields)
    assert same(short.data, careful.data)
    assert (list(short.headers.items()), short.error) == (list(careful.headers.items()), None)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([b"n", b"\xff", b"n", b"1"], id="the first is not UTF-8"),
        pytest.param([b"n", b"1", b"m", b"2", b"n", b"3"], id="text"),
        pytest.param([b"n", b"1", b"_step:t", b"{", b"_step:t", b'{"n":"j"}'], id="types"),
        pytest.param([b"_step:h:a", b"\xff", b"_step:h:a", b"1"], id="header"),
    ],
)
def test_of_a_field_that_is_there_twice_the_last_counts_both_ways(fields):
    """Redis allows it; the place is that of the first."""
    short, careful = Codec().decode(fields), Codec().decode_carefully(fields)
    assert same(short.data, careful.data)
    assert short == careful
    assert short.error is None


@pytest.mark.parametrize("space", [" ", "\n", "\t\r\n"])
def test_space_around_json_of_other_programs_is_allowed(space):
    """The short way through JSON does not know it, and leaves it to the other."""
    for stored in (f"{space}1", f"1{space}", f"{space}1{space}"):
        fields = [b"n", stored.encode(), b"_step:t", f'{space}{{"n":"j"}}{space}'.encode()]
        assert Codec().decode(fields) == Decoded({"n": 1}, {})


def test_names_that_equal_a_known_one_are_still_checked():
    """A subclass of str is refused also where its text was encoded before."""
    Codec().encode({"name": "a"})
    assert "is of type Text" in str(outcome(Codec().encode, {Text("name"): "a"}))
    assert "Text" in str(outcome(Codec().encode, {"name": Text("a")}))


def test_few_names_are_remembered():
    """A program whose field names are data does not fill the memory with them."""
    for number in range(5000):
        fields = Codec().encode({f"name{number}": "x", "n" * 10_000 + str(number): "y"})
        assert Codec().decode(fields).error is None
    for names in (plain_fields._encoded_names, plain_fields.decoded_names):
        assert len(names) <= 1000
        assert max(map(len, names)) <= 64


# --- What the receiver gets -----------------------------------------------------------------


def test_a_received_message_is_a_dict_of_what_was_published():
    """``receive_message`` gives dicts: what was published, and what the server knows of it."""
    delivery = Delivery("5-1", Codec().encode({"n": 1}, {"trace": "ab"}), 3)
    [message] = received_messages("orders", [delivery], Codec())
    assert message == {
        "id": "5-1",
        "data": {"n": 1},
        "headers": {"trace": "ab"},
        "stream": "orders",
        "delivery_count": 3,
        "error": None,
    }


def test_a_received_message_that_is_damaged_holds_raw_fields():
    """An entry that cannot be decoded is received with its raw fields and the reason."""
    delivery = Delivery("5-1", [b"_step:t", b"[]"], 1)
    [message] = received_messages("orders", [delivery], Codec())
    assert message["data"] == {b"_step:t": b"[]"}
    assert message["headers"] == {}
    assert message["error"] == "_step:t is not a JSON object"


def test_the_repr_of_a_delivery_shows_no_data():
    """Deliveries may appear in logs; what they hold may not."""
    assert SECRET not in repr(Delivery("5-1", [b"password", SECRET.encode()], 1))
