"""StepRedisPoolParams: where the server is and how to talk to it."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

from step_redis.errors import ConfigurationError

__all__ = ["StepRedisPoolParams"]

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})

Check: TypeAlias = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def _fail(name: str, value: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"{name} must be {wanted}; got {value!r}")


def _whole(low: int, high: int | None = None) -> Check:
    wanted = (
        f"a whole number of at least {low}"
        if high is None
        else f"a whole number between {low} and {high}"
    )

    def check(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if type(value) is not int or value < low or (high is not None and value > high):
            raise _fail(attribute.name, value, wanted)

    return check


def _seconds(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if type(value) not in (int, float) or not 0 < value < 1e9:
        raise _fail(attribute.name, value, "a positive number of seconds")


def _flag(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if type(value) is not bool:
        raise _fail(attribute.name, value, "True or False")


def _text(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise _fail(attribute.name, value, "a text that is not empty")


def _secret(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    # The value stays out of the error: it may be a password of the wrong type.
    if not isinstance(value, str):
        kind = type(value).__name__
        raise ConfigurationError(f"{attribute.name} must be a str; got a value of type {kind}")


def _protocol(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if type(value) is not int or value not in (2, 3):
        raise _fail(attribute.name, value, "2 or 3 (the version of RESP)")


def _optional(check: Check) -> Check:
    def check_unless_none(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if value is not None:
            check(instance, attribute, value)

    return check_unless_none


def _none_to_empty(value: Any) -> Any:
    return "" if value is None else value


@attrs.frozen(kw_only=True)
class StepRedisPoolParams:
    """Where the server is and how to talk to it.

    Immutable; ``attrs.evolve(params, db=1)`` makes a changed copy. Every value is checked when
    the object is made. ``StepRedisPoolParams()`` reaches a server on this machine.

    Args:
        host: Name or address of the server.
        port: TCP port of the server.
        username: ACL user; None is the default user.
        password: Password of the user; empty for none. Never shown in ``repr``, logs or errors.
        db: Number of the database.
        socket_timeout: Seconds to wait for an answer of the server. A read that waits for
            messages has its own time on top of it, so that this may be short.
        socket_connect_timeout: Seconds to wait for a connection. A server that cannot be
            reached is tried again until they are over.
        socket_keep_idle: Idle seconds before the first TCP keepalive probe.
        socket_keep_alive: Whether dead peers are detected by TCP keepalive and, on Linux, by
            ``TCP_USER_TIMEOUT``.
        socket_keep_cnt: Unanswered probes after which the peer counts as dead.
        socket_keep_interval: Seconds between probes.
        ssl_enable: Whether to use TLS.
        ssl_client_key_file: The client's private key (PEM), for mutual TLS.
        ssl_client_key_file_password: Password of that key, if it is encrypted.
        ssl_client_cert_file: The client's certificate (PEM), for mutual TLS.
        ssl_cert_requested: Whether the server's certificate and host name are verified.
            False makes TLS worthless against an attacker; a warning is logged.
        ssl_ca_certs_file: Certificates (PEM) of authorities to trust besides the system's.
        health_check_interval: A connection that was idle for so many seconds is checked with
            a PING before it is used; 0 turns that off.
        max_connections: Connections for commands, made when they are needed.
        max_read_connections: Connections for reads that wait, made when they are needed. Each
            waiting ``receive_message`` holds one, so that commands never queue behind reads.
        connection_available_timeout: Seconds to wait for a free connection; None waits for ever.
        protocol: Version of RESP, 2 or 3. Results are the same.

    Raises:
        ConfigurationError: A value cannot work; the error names the field and the value.
    """

    host: str = attrs.field(default="localhost", validator=_text)
    port: int = attrs.field(default=6379, validator=_whole(1, 65535))
    username: str | None = attrs.field(default=None, validator=_optional(_text))
    password: str = attrs.field(default="", converter=_none_to_empty, validator=_secret, repr=False)
    db: int = attrs.field(default=0, validator=_whole(0))
    socket_timeout: float = attrs.field(default=5, validator=_seconds)
    socket_connect_timeout: float = attrs.field(default=5, validator=_seconds)
    socket_keep_idle: int = attrs.field(default=30, validator=_whole(1, 32767))
    socket_keep_alive: bool = attrs.field(default=True, validator=_flag)
    socket_keep_cnt: int = attrs.field(default=3, validator=_whole(1, 127))
    socket_keep_interval: int = attrs.field(default=5, validator=_whole(1, 32767))
    ssl_enable: bool = attrs.field(default=False, validator=_flag)
    ssl_client_key_file: str | None = attrs.field(default=None, validator=_optional(_text))
    ssl_client_key_file_password: str | None = attrs.field(
        default=None, validator=_optional(_secret), repr=False
    )
    ssl_client_cert_file: str | None = attrs.field(default=None, validator=_optional(_text))
    ssl_cert_requested: bool = attrs.field(default=True, validator=_flag)
    ssl_ca_certs_file: str | None = attrs.field(default=None, validator=_optional(_text))
    health_check_interval: int = attrs.field(default=30, validator=_whole(0))
    max_connections: int = attrs.field(default=20, validator=_whole(1))
    max_read_connections: int = attrs.field(default=100, validator=_whole(1))
    connection_available_timeout: float | None = attrs.field(
        default=20, validator=_optional(_seconds)
    )
    protocol: int = attrs.field(default=3, validator=_protocol)

    def __attrs_post_init__(self) -> None:
        if self.ssl_client_key_file is not None and self.ssl_client_cert_file is None:
            raise ConfigurationError(
                "ssl_client_key_file needs the certificate of that key: set ssl_client_cert_file"
            )

    @classmethod
    def from_url(cls, url: str, **fields: Any) -> Self:
        """Return the parameters that a URL describes.

        Args:
            url: ``redis://`` or, for TLS, ``rediss://``, as in
                ``rediss://user:password@host:6380/0?socket_timeout=3``. Special characters in
                user and password are percent-encoded. The query may set any field by its name.
            fields: Fields by name; they win over the URL.

        Raises:
            ConfigurationError: The URL is malformed. The error never shows the URL, since it
                may hold a password.
        """
        found = _url_fields(url)
        return cls(**{**found, **fields})

    @classmethod
    def from_env(
        cls, prefix: str = "STEP_REDIS_", environ: Mapping[str, str] | None = None
    ) -> Self:
        """Return the parameters that environment variables describe.

        ``STEP_REDIS_HOST`` sets ``host``, and so on for every field. ``STEP_REDIS_URL``, if it is
        set, is read as in `from_url`; single variables win over it. Variables that are empty or
        name no field are left alone.

        Args:
            prefix: What the names of the variables begin with.
            environ: Where to look; None is ``os.environ``.

        Raises:
            ConfigurationError: A variable has a value that cannot work.
        """
        environ = os.environ if environ is None else environ
        url = environ.get(f"{prefix}URL")
        found = _url_fields(url) if url else {}
        for attribute in attrs.fields(cls):
            variable = f"{prefix}{attribute.name.upper()}"
            if text := environ.get(variable):
                found[attribute.name] = _parse(attribute, text, variable)
        return cls(**found)


def _parse(attribute: "attrs.Attribute[Any]", text: str, where: str) -> object:
    """Return the value of a field that was written as text in a URL or a variable, checked."""
    value = _value(attribute.type, text, where)
    if attribute.validator is not None:
        attribute.validator(None, attribute.evolve(name=where), value)
    return value


def _value(kind: Any, text: str, where: str) -> object:
    if kind is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise _fail(where, text, "true or false")
    if kind == float | None and text.lower() == "none":
        return None
    if kind in (int, float, float | None):
        for convert in (int, float):
            try:
                return convert(text)
            except ValueError:
                continue
        raise _fail(where, text, "a number")
    return text


def _url_fields(url: str) -> dict[str, Any]:
    # Whatever is wrong, the URL and its parts stay out of the error: a password that is not
    # percent-encoded ends up in the wrong part.
    encode = "percent-encode special characters in user and password"
    if not isinstance(url, str):
        raise ConfigurationError(f"the URL must be a str; got {type(url).__name__}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigurationError(f"the URL has no valid host and port; {encode}") from None
    if parts.scheme not in ("redis", "rediss"):
        raise ConfigurationError("the URL must begin with redis:// or, for TLS, rediss://")
    database = parts.path.strip("/")
    if parts.fragment or "@" in parts.query or (database and not database.isdecimal()):
        raise ConfigurationError(
            f"behind host and port, the URL may have the number of a database and a query; {encode}"
        )
    written = {
        "host": unquote(parts.hostname or "") or None,
        "port": port,
        "username": unquote(parts.username or "") or None,
        "password": unquote(parts.password or "") or None,
        "db": int(database) if database else None,
    }
    found: dict[str, Any] = {name: value for name, value in written.items() if value is not None}
    found["ssl_enable"] = parts.scheme == "rediss"
    fields = attrs.fields_dict(StepRedisPoolParams)
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in fields:
            raise ConfigurationError(
                f"the URL's query sets {name!r}, which is no field of StepRedisPoolParams"
            )
        found[name] = _parse(fields[name], text, name)
    return found
