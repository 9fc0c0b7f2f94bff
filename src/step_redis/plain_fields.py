"""The short way through the codec: messages and entries as nearly all of them are.

It says what `codec` says, or that it cannot tell; then the careful way there has to be taken. That
one is the reference: tests compare the two.
"""

import json
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, NoReturn, TypeVar

__all__ = [
    "HEADER_PREFIX",
    "NOT_PLAIN",
    "RESERVED_PREFIX",
    "TYPES",
    "NotPlain",
    "apply_reserved",
    "decode_json",
    "decoded_names",
    "encode_json",
    "encode_plain",
]

RESERVED_PREFIX = "_step:"
TYPES = "_step:t"
"""The field that notes what is not text."""
HEADER_PREFIX = "_step:h:"
"""What the field of a header begins with; the header's name follows."""

_RESERVED, _TYPES, _HEADER = RESERVED_PREFIX.encode(), TYPES.encode(), HEADER_PREFIX.encode()

_KNOWN_NAMES = 1000
_KNOWN_LENGTH = 64
"""So many names of fields, of so many characters at most, are remembered."""


class NotPlain(Exception):  # noqa: N818 - it is no failure
    """The careful way is needed."""


encode_json = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def decode_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It nests too deeply.
    """
    try:
        value, end = _decoder.raw_decode(text)
    except json.JSONDecodeError:
        value, end = None, -1
    # decode() allows for space around the value, which nearly never is there, and takes its time.
    return value if end == len(text) else _decoder.decode(text)


N = TypeVar("N", str, bytes)
M = TypeVar("M")


class _Names(dict[N, M]):
    """Names of fields and what they are converted to: messages repeat a few."""

    def __init__(self, convert: Callable[[N], M]) -> None:
        super().__init__()
        self._convert: Callable[[N], M] = convert

    def __missing__(self, name: N) -> M:
        converted: M = self._convert(name)
        if len(name) <= _KNOWN_LENGTH:
            if len(self) >= _KNOWN_NAMES:
                self.clear()
            self[name] = converted
        return converted


def _encode_name(name: str) -> bytes:
    if name.startswith(RESERVED_PREFIX):
        raise NotPlain
    return name.encode()


def _decode_name(name: bytes) -> str | None:
    return None if name.startswith(_RESERVED) else name.decode()


_encoded_names = _Names(_encode_name)
decoded_names = _Names(_decode_name)
"""Reserved names are None here, which is no name."""


def _float_json(value: float) -> str:
    if not isfinite(value):
        raise NotPlain
    return repr(value)


_SCALAR_JSON: dict[type, Callable[[Any], str]] = {
    int: repr,
    float: _float_json,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): {None: "null"}.__getitem__,
}


def encode_plain(message: Any) -> list[bytes]:
    """Return the fields of a dict of texts, bytes, numbers, booleans and None.

    Raises:
        NotPlain: It is no such dict, or cannot be stored.
    """
    if type(message) is not dict:
        raise NotPlain
    fields: list[bytes] = []
    types: list[str] = []
    names = _encoded_names
    try:
        for key, value in message.items():
            if type(key) is not str:
                raise NotPlain
            kind = type(value)
            if kind is str:
                fields += (names[key], value.encode())
            elif kind is bytes:
                fields += (names[key], value)
                types.append(encode_json(key) + ':"b"')
            elif kind in _SCALAR_JSON:
                fields += (names[key], _SCALAR_JSON[kind](value).encode())
                types.append(encode_json(key) + ':"j"')
            else:
                raise NotPlain
    except ValueError:
        # Lone surrogates, and ints of more digits than Python turns into text.
        raise NotPlain from None
    if types or not fields:
        fields += (_TYPES, b"{%b}" % ",".join(types).encode())
    return fields


def apply_reserved(reserved: Mapping[bytes, str], data: dict[str, Any]) -> dict[str, str]:
    """Turn what is noted as JSON or bytes into that; return the headers.

    Raises one of `NOT_PLAIN` if something is damaged.
    """
    headers: dict[str, str] = {}
    for name, text in reserved.items():
        if name.startswith(_HEADER):
            headers[name[len(_HEADER) :].decode()] = text
        elif name == _TYPES:
            types = decode_json(text)
            if type(types) is not dict:
                raise NotPlain
            for key, kind in types.items():
                if kind == "j":
                    data[key] = decode_json(data[key])
                elif kind == "b":
                    data[key] = data[key].encode()
                else:
                    raise NotPlain
    return headers


NOT_PLAIN = (NotPlain, ValueError, LookupError, RecursionError, StopIteration)
"""What decoding raises for an entry that it leaves to the careful way."""
