"""The wire format: a message, a dict, as the fields of a stream entry and back.

Each key of the message is a field of the entry. A ``str`` is stored as its UTF-8 text; what else
a field holds is noted in the field ``_step:t``, a JSON object: ``"j"`` for JSON, ``"b"`` for bytes.
It is absent when all values are ``str``. Headers travel as ``_step:h:NAME``.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs

from step_redis.errors import ConfigurationError, DecodeError, EncodeError
from step_redis.plain_fields import (
    HEADER_PREFIX,
    NOT_PLAIN,
    RESERVED_PREFIX,
    TYPES,
    NotPlain,
    apply_reserved,
    decode_json,
    decoded_names,
    encode_json,
    encode_plain,
)

__all__ = ["HEADER_PREFIX", "RESERVED_PREFIX", "TYPES", "Codec", "Decoded"]

_JSON_SCALARS = frozenset({int, float, bool, type(None)})
_AS_IT_IS = _JSON_SCALARS | {str}
_MAX_DEPTH = 100
"""How deep lists and dicts may nest: far below what exhausts the stack of a reader."""


@attrs.define
class Decoded:
    """What an entry says: its message and headers, or why it cannot be decoded."""

    data: dict[Any, Any]
    headers: dict[str, str]
    error: str | None = None


def _check_foreign(_: object, __: "attrs.Attribute[Any]", value: Any) -> None:
    if value not in ("str", "bytes"):
        raise ConfigurationError(f"foreign must be 'str' or 'bytes'; got {value!r}")


@attrs.frozen(kw_only=True)
class Codec:
    """Turns messages into fields and back.

    Args:
        default: Called with a value of another type; returns one that can be stored.
        foreign: How entries without ``_step:t`` read: ``"str"`` decodes UTF-8 and leaves the rest
            bytes, ``"bytes"`` leaves names and values bytes.
    """

    default: Callable[[Any], Any] | None = None
    foreign: Literal["str", "bytes"] = attrs.field(default="str", validator=_check_foreign)

    def encode(
        self, message: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> list[bytes]:
        """Return the entry's fields: name, value, name, value, ...

        Raises:
            EncodeError: A key or a value cannot be stored so that it comes back as it was. The
                error names the key and the type, never the value.
        """
        try:
            fields = encode_plain(message)
        except NotPlain:
            fields = self.encode_carefully(message)
        return fields if headers is None else fields + _encode_headers(headers)

    def encode_carefully(self, message: Mapping[str, Any]) -> list[bytes]:
        """Return the fields of any message, or say what is wrong with it."""
        if not isinstance(message, Mapping):
            raise EncodeError(f"a message must be a dict; got {type(message).__name__}")
        fields: list[bytes] = []
        types: dict[str, str] = {}
        for key, value in message.items():
            if type(key) is not str:
                raise EncodeError(f"keys must be str; key {key!r} is of type {_type(key)}")
            if key.startswith(RESERVED_PREFIX):
                raise EncodeError(f"key {key!r} begins with the reserved prefix {RESERVED_PREFIX}")
            stored, kind = self._encode_value(key, value)
            if kind:
                types[key] = kind
            fields += (_utf8(key, f"key {key!r}"), stored)
        if types or not fields:
            fields += (TYPES.encode(), encode_json(types).encode())
        return fields

    def _encode_value(self, key: str, value: Any) -> tuple[bytes, str]:
        kind = type(value)
        where = f"key {key!r}"
        if kind is str:
            return _utf8(value, where), ""
        if kind is bytes:
            return value, "b"
        if self.default is not None and kind not in _JSON_SCALARS and kind not in (list, dict):
            value = self.default(value)
            if type(value) in (str, bytes):
                return Codec()._encode_value(key, value)  # noqa: SLF001 - the same class
        value = self._storable(value, where, _MAX_DEPTH)
        try:
            return _utf8(encode_json(value), where), "j"
        except ValueError as error:
            # NaN, infinity, and ints of more digits than Python turns into text.
            raise EncodeError(f"{where} cannot be stored as JSON: {_reason(error)}") from None

    def _storable(self, value: Any, where: str, depth: int) -> Any:
        """Return the value as JSON types only, or refuse it."""
        kind = type(value)
        if kind in _AS_IT_IS:
            return value
        if depth == 0:
            raise EncodeError(f"{where} nests deeper than {_MAX_DEPTH} levels")
        if kind is list or kind is dict:
            if kind is list:
                return [
                    item if type(item) in _AS_IT_IS else self._storable(item, where, depth - 1)
                    for item in value
                ]
            for name in value:
                if type(name) is not str:
                    raise EncodeError(
                        f"{where} holds a dict with a key of type {_type(name)}; JSON has only str"
                    )
            return {
                name: item if type(item) in _AS_IT_IS else self._storable(item, where, depth - 1)
                for name, item in value.items()
            }
        if self.default is not None:
            replaced = self.default(value)
            if type(replaced) is not kind:
                return self._storable(replaced, where, depth - 1)
        within = "" if depth == _MAX_DEPTH else "a list or dict with "
        raise EncodeError(
            f"{where} holds {within}a value of type {_type(value)}, which would not come back as it"
            " is: convert it, or give the stream default= to convert such values"
        )

    def decode(self, fields: Sequence[bytes]) -> Decoded:
        """Return what an entry says; never raises for what stands in it."""
        data, headers, error = self.read(fields)
        return Decoded(data, headers, error)

    def read(self, fields: Sequence[bytes]) -> tuple[dict[Any, Any], dict[str, str], str | None]:
        """Return the same as data, headers and error."""
        if self.foreign == "str":
            data: dict[Any, Any] = {}
            reserved: dict[bytes, str] = {}
            names, rest = decoded_names, iter(fields)
            try:
                for name in rest:
                    key = names[name]
                    if key is not None:
                        data[key] = next(rest).decode()
                    else:
                        reserved[name] = next(rest).decode()
                return data, apply_reserved(reserved, data) if reserved else {}, None
            except NOT_PLAIN:
                pass
        decoded = self.decode_carefully(fields)
        return decoded.data, decoded.headers, decoded.error

    def decode_carefully(self, fields: Sequence[bytes]) -> Decoded:
        """Return what any entry says, or what is wrong with it."""
        raw = dict(zip(fields[::2], fields[1::2], strict=True))
        try:
            return self._decode(raw)
        except DecodeError as error:
            return Decoded(data=raw, headers={}, error=str(error))

    def _decode(self, raw: dict[bytes, bytes]) -> Decoded:
        prefix = RESERVED_PREFIX.encode()
        types = _decode_types(raw)
        data: dict[Any, Any] = {}
        headers: dict[str, str] = {}
        for name, stored in raw.items():
            if name.startswith(prefix):
                if name.startswith(HEADER_PREFIX.encode()):
                    header = _text(name, "the name of a header")
                    headers[header[len(HEADER_PREFIX) :]] = _text(stored, f"header {header!r}")
            elif types is not None:
                key = _text(name, "the name of a field")
                data[key] = _decode_value(key, stored, types.pop(key, None))
            elif self.foreign == "bytes":
                data[name] = stored
            else:
                data[_text_or_bytes(name)] = _text_or_bytes(stored)
        if types:
            raise DecodeError(f"{TYPES} names {_names(types)}, which the entry does not have")
        return Decoded(data, headers)


def _encode_headers(headers: Mapping[str, str]) -> list[bytes]:
    if type(headers) is not dict and not isinstance(headers, Mapping):
        raise EncodeError(f"headers must be a dict of str to str; got {_type(headers)}")
    fields: list[bytes] = []
    for name, text in headers.items():
        if type(name) is not str or type(text) is not str:
            raise EncodeError(
                f"headers must be str to str; header {name!r} is {_type(name)} to {_type(text)}"
            )
        if name.startswith(RESERVED_PREFIX):
            raise EncodeError(f"header {name!r} begins with the reserved prefix {RESERVED_PREFIX}")
        try:
            fields += ((HEADER_PREFIX + name).encode(), text.encode())
        except UnicodeEncodeError:
            raise _lone_surrogate(f"header {name!r}") from None
    return fields


def _decode_types(raw: Mapping[bytes, bytes]) -> dict[str, str] | None:
    """Return what ``_step:t`` says, or None if the entry does not have it."""
    stored = raw.get(TYPES.encode())
    if stored is None:
        return None
    types = _json(stored, TYPES)
    if type(types) is not dict:
        raise DecodeError(f"{TYPES} is not a JSON object")
    unknown = [name for name, kind in types.items() if kind not in ("j", "b")]
    if unknown:
        raise DecodeError(f"{TYPES} gives an unknown type to {_names(unknown)}")
    return types


def _decode_value(key: str, stored: bytes, kind: str | None) -> Any:
    if kind == "b":
        return stored
    where = f"field {key!r}"
    return _json(stored, where) if kind == "j" else _text(stored, where)


def _json(stored: bytes, where: str) -> Any:
    try:
        return decode_json(_text(stored, where))
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"{where} is not valid JSON: {_reason(error)}") from None


def _text(stored: bytes, where: str) -> str:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        raise DecodeError(f"{where} is not valid UTF-8") from None


def _text_or_bytes(stored: bytes) -> str | bytes:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _utf8(text: str, where: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _lone_surrogate(where) from None


def _lone_surrogate(where: str) -> EncodeError:
    return EncodeError(f"{where} holds a lone surrogate, which UTF-8 cannot store")


def _reason(error: Exception) -> str:
    """Return why JSON failed without quoting the data, as Python's own texts may do."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    if isinstance(error, RecursionError):
        return "it nests too deeply"
    if "digits" in str(error):
        return "it has an int of more digits than sys.get_int_max_str_digits() allows"
    return "NaN and infinity are not JSON"


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _type(value: object) -> str:
    return type(value).__name__
