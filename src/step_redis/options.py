"""What redis-py is told: the parameters as its keyword arguments, and what a pool connects to."""

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs
from redis.maint_notifications import MaintNotificationsConfig

from step_redis.errors import ConfigurationError
from step_redis.params import StepRedisPoolParams

__all__ = ["Target", "check_tls_files", "pool_options", "reader_options"]

_DEFAULT_SECONDS = 5.0


@attrs.frozen
class Target:
    """What a pool connects to, as far as calls and their errors need to know it."""

    name: str
    """Host and port, for errors."""
    socket_seconds: float
    """How long an answer may take."""
    connect_seconds: float
    """How long connecting may be tried."""
    tls: bool
    """Whether TLS is spoken."""
    secrets: tuple[str, ...] = attrs.field(repr=False)
    """What must not be seen in an error; servers quote arguments they do not understand."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Return the target of a redis-py pool with these ``connection_kwargs``."""
        socket_seconds = options.get("socket_timeout") or _DEFAULT_SECONDS
        host, port = options.get("host", "localhost"), options.get("port", 6379)
        found = (options.get("password"), options.get("ssl_password"))
        return cls(
            name=options.get("path") or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"),
            socket_seconds=socket_seconds,
            connect_seconds=options.get("socket_connect_timeout") or socket_seconds,
            tls="ssl_cert_reqs" in options,
            secrets=tuple(
                secret.decode(errors="replace") if isinstance(secret, bytes) else str(secret)
                for secret in found
                if secret
            ),
        )


def pool_options(params: StepRedisPoolParams) -> dict[str, Any]:
    """Return the keyword arguments of redis-py's blocking pool, TLS included."""
    options: dict[str, Any] = {
        "max_connections": params.max_connections,
        "timeout": params.connection_available_timeout,
        "host": params.host,
        "port": params.port,
        "username": params.username,
        "password": params.password or None,
        "db": params.db,
        "socket_timeout": params.socket_timeout,
        "socket_connect_timeout": params.socket_connect_timeout,
        "socket_keepalive": params.socket_keep_alive,
        "socket_keepalive_options": _keepalive_options(params),
        "health_check_interval": params.health_check_interval,
        "protocol": params.protocol,
        # On by default with RESP3, they turn off the check for replies left in a connection.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if params.ssl_enable:
        options |= {
            "ssl_keyfile": params.ssl_client_key_file,
            "ssl_certfile": params.ssl_client_cert_file,
            "ssl_password": params.ssl_client_key_file_password,
            "ssl_ca_certs": params.ssl_ca_certs_file,
            "ssl_cert_reqs": "required" if params.ssl_cert_requested else "none",
            "ssl_check_hostname": params.ssl_cert_requested,
        }
    return options


def reader_options(
    options: Mapping[str, Any], max_connections: int, available_seconds: float | None
) -> dict[str, Any]:
    """Return the keyword arguments of a pool for reads, beside a pool with these options."""
    shared = {name: value for name, value in options.items() if not name.startswith("maint_")}
    return shared | {
        "max_connections": max_connections,
        "timeout": available_seconds,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _keepalive_options(params: StepRedisPoolParams) -> dict[int, int]:
    """Return the socket options of TCP keepalive, as far as this platform has them."""
    idle, interval = params.socket_keep_idle, params.socket_keep_interval
    wanted = {
        "TCP_KEEPIDLE": idle,
        "TCP_KEEPALIVE": idle,  # macOS's name for TCP_KEEPIDLE
        "TCP_KEEPINTVL": interval,
        "TCP_KEEPCNT": params.socket_keep_cnt,
        # Probes are not sent while data waits to be acknowledged: this bounds that case.
        "TCP_USER_TIMEOUT": min(1000 * (idle + interval * params.socket_keep_cnt), 2**31 - 1),
    }
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


def check_tls_files(params: StepRedisPoolParams) -> None:
    """Load the files of the parameters once, so that a bad one is named before any connection.

    Raises:
        ConfigurationError: A file is missing, is no PEM file, or its password is wrong.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("ssl_ca_certs_file", "ssl_client_cert_file", "ssl_client_key_file"):
        path = getattr(params, name)
        try:
            if path is not None:
                Path(path).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{name}: cannot read {path!r}: {error.strerror}") from error
    for name in ("ssl_ca_certs_file", "ssl_client_cert_file"):
        path = getattr(params, name)
        try:
            if path is not None:
                context.load_verify_locations(path)
        except ssl.SSLError:
            raise ConfigurationError(f"{name}: {path!r} holds no PEM certificates") from None
    if params.ssl_client_cert_file is None:
        return
    key = params.ssl_client_key_file or params.ssl_client_cert_file
    password = params.ssl_client_key_file_password
    try:
        # Without a password OpenSSL would ask for it on the terminal.
        context.load_cert_chain(params.ssl_client_cert_file, key, password or "")
    except ssl.SSLError as error:
        hint = (
            "it is encrypted and the password is missing or wrong (ssl_client_key_file_password),"
            if b"ENCRYPTED" in Path(key).read_bytes()
            else "it is no PEM key,"
        )
        raise ConfigurationError(
            f"ssl_client_key_file: cannot use {key!r}: {hint} or it does not belong to"
            f" {params.ssl_client_cert_file!r} (OpenSSL: {error.reason})"
        ) from None
