"""What went wrong: redis-py's errors as ours, and the one place where they are logged."""

import logging
import os
import re
import ssl
from collections.abc import Iterator

import attrs
import redis.exceptions

from step_redis.errors import (
    AuthenticationFailedError,
    ConnectionFailedError,
    DuplicateConflict,
    GroupNotFoundError,
    NotAStreamError,
    OperationTimeoutError,
    PermissionDeniedError,
    PoolExhaustedError,
    ServerError,
    ServerLoadingError,
    ServerOutOfMemoryError,
    ServerReadOnlyError,
    StepRedisError,
    StreamNotFoundError,
    TlsFailedError,
)
from step_redis.options import Target

__all__ = [
    "REDIS_FAILURES",
    "Subject",
    "connect_failure",
    "is_reply",
    "is_without_scripts",
    "no_stream",
    "reply_failure",
    "talk_failure",
    "tell",
    "told",
]

REDIS_FAILURES = (redis.exceptions.RedisError, OSError)
"""What redis-py's connections and pools raise."""

_HIDDEN = "***"

_QUOTED = ", with args beginning with"
"""Servers quote the arguments of a command they do not know, cut and changed: none are shown."""

_SCRIPT_DENIED = re.compile("The user executing the script can't|ACL failure in script")
"""What a script is told since Redis 7 about what its user may not do."""

_NO_SCRIPTS = re.compile("unknown command .EVAL")
"""What a server says on which scripts were disabled."""

_EXHAUSTED = ("No connection available.",)
"""What redis-py's blocking pool says, in an error of the same class as a network failure."""


@attrs.define(eq=False)  # frozen, it would take three times as long to make
class Subject:
    """What a call is about; its failures carry it."""

    action: str
    stream: str = ""
    group: str = ""
    consumer: str = ""
    message_id: str | None = None

    def consumer_path(self) -> tuple[str, str, str]:
        """Return what names a consumer: stream, group and consumer."""
        return self.stream, self.group, self.consumer


class told:  # noqa: N801 - it is used like a function
    """Give a failure its subject and log it: once, where the user's call ends."""

    __slots__ = ("_logger", "_subject")

    def __init__(self, logger: logging.Logger, subject: Subject) -> None:
        self._logger = logger
        self._subject = subject

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, StepRedisError):
            tell(self._logger, self._subject, error)


def tell(logger: logging.Logger, subject: Subject, error: StepRedisError) -> None:
    """Do what `told` does with a failure."""
    for name in ("stream", "group", "consumer", "message_id"):
        about = getattr(subject, name)
        # An argument that is no name may be a message, put in the wrong place.
        if getattr(error, name) is None and isinstance(about, str):
            setattr(error, name, about or None)
    # That a key was used before is for the caller to judge.
    level = logging.INFO if isinstance(error, DuplicateConflict) else logging.ERROR
    logger.log(level, "%s failed: %s: %s", subject.action, type(error).__name__, error)


def connect_failure(
    error: Exception, target: Target, handled: BaseException | None = None
) -> StepRedisError:
    """Return the failure of getting a connection; nothing of the user's was sent.

    ``handled`` is what the caller was handling at the time, which is no cause.
    """
    if isinstance(error, redis.exceptions.MaxConnectionsError) or error.args == _EXHAUSTED:
        failure: StepRedisError = PoolExhaustedError(
            f"all connections to {target.name} stayed in use: raise max_connections or"
            " connection_available_timeout"
        )
    elif (reply := _refusal(error, target)) is not None:
        failure = reply
    elif (tls := _tls_failure(error, target, handled)) is not None:
        failure = tls
    elif isinstance(error, redis.exceptions.TimeoutError | TimeoutError):
        failure = OperationTimeoutError(
            f"connecting to {target.name} took longer than {target.connect_seconds:g} s"
            f" (socket_connect_timeout). {_check_tls(target)}"
        )
    elif isinstance(error, redis.exceptions.InvalidResponse):
        failure = ConnectionFailedError(
            f"{target.name} does not answer like a Redis server. {_check_tls(target)}"
        )
    else:
        failure = ConnectionFailedError(
            f"cannot connect to {target.name}: {_why(error, target, handled)}. Check host and port,"
            f" and that the server runs. {_check_tls(target)}"
        )
    return _caused(failure, error, target)


def talk_failure(
    error: Exception, target: Target, effect: str | None, handled: BaseException | None = None
) -> StepRedisError:
    """Return the failure of a command whose sending had begun.

    Args:
        error: What redis-py raised.
        target: What the connection leads to.
        effect: What may have happened on the server, as in ``"the entry may have been written"``;
            None for a command that changes nothing.
        handled: What the caller was handling at the time, which is no cause.
    """
    if (reply := _refusal(error, target)) is not None:
        return _caused(reply, error, target)
    outcome = f"; {effect}" if effect else ""
    unknown = effect is not None
    if isinstance(error, redis.exceptions.TimeoutError | TimeoutError):
        failure: StepRedisError = OperationTimeoutError(
            f"{target.name} did not answer in time{outcome}", outcome_unknown=unknown
        )
    elif (tls := _tls_failure(error, target, handled, outcome)) is not None:
        tls.outcome_unknown = unknown
        failure = tls
    else:
        failure = ConnectionFailedError(
            f"the connection to {target.name} broke: {_why(error, target, handled)}{outcome}",
            outcome_unknown=unknown,
        )
    return _caused(failure, error, target)


def reply_failure(error: redis.exceptions.RedisError, target: Target) -> StepRedisError:
    """Return the failure that an error reply stands for; the command was not carried out."""
    text = _clean(error, target)
    match "NOPERM" if _SCRIPT_DENIED.search(text) else _code(error):
        case "NOGROUP":
            return GroupNotFoundError(
                "there is no such stream or no such group on it; create_input_stream makes both"
            )
        case "WRONGTYPE":
            return NotAStreamError(
                "the key holds something else than a stream; or a key beside it, whose name begins"
                " with the stream's in braces, is none of step_redis"
            )
        case "NOPERM":
            return PermissionDeniedError(
                f"{target.name} denied permission: {text}. Give the user the command and the key"
                " (ACL SETUSER)"
            )
        case "READONLY":
            return ServerReadOnlyError(
                f"{target.name} is a read-only replica: connect to the primary"
            )
        case "OOM":
            return ServerOutOfMemoryError(
                f"{target.name} has reached its maxmemory: trim or delete data, or raise the limit"
            )
        case _:
            failure = ServerError(f"{target.name} answered with an error: {text}")
            failure.code = _code(error)
            return failure


def no_stream() -> StreamNotFoundError:
    """Return the failure that there is no stream to publish to, and none was to be made."""
    return StreamNotFoundError(
        "there is no such stream: create_input_stream makes one, create=True too"
    )


def is_without_scripts(error: StepRedisError) -> bool:
    """Whether a call of a script failed because the user, or this server, may run none."""
    return isinstance(error, PermissionDeniedError) or _NO_SCRIPTS.search(str(error)) is not None


def is_reply(error: object, code: str) -> bool:
    """Whether something is an error reply of that code."""
    return isinstance(error, redis.exceptions.ResponseError) and _code(error) == code


def _code(error: redis.exceptions.RedisError) -> str:
    # redis-py takes the codes that it knows out of the text.
    return error.status_code or str(error).partition(" ")[0]


def _refusal(error: Exception, target: Target) -> StepRedisError | None:
    """Return the failure if the server itself refused, and so carried out nothing."""
    match error:
        case redis.exceptions.AuthenticationWrongNumberOfArgsError():
            return None
        case redis.exceptions.AuthenticationError():
            return AuthenticationFailedError(
                f"{target.name} refused to authenticate: {_clean(error, target)}."
                " Check username and password"
            )
        case redis.exceptions.BusyLoadingError():
            return ServerLoadingError(f"{target.name} is still loading its data: try again")
        case redis.exceptions.ResponseError():
            return reply_failure(error, target)
        case _:
            return None


def _tls_failure(
    error: Exception, target: Target, handled: BaseException | None, outcome: str = ""
) -> StepRedisError | None:
    """Return the failure if TLS is why."""
    found = next((link for link in _chain(error, handled) if isinstance(link, ssl.SSLError)), None)
    if found is None:
        return None
    if isinstance(found, ssl.SSLCertVerificationError):
        return TlsFailedError(
            f"the certificate of {target.name} cannot be trusted: {found.verify_message}{outcome}."
            " Check host, ssl_ca_certs_file and the certificate"
        )
    reason = found.reason or _clean(found, target)
    if reason in _NO_TLS:
        return TlsFailedError(
            f"{target.name} does not speak TLS on this port: use its TLS port, or set"
            f" ssl_enable=False ({reason})"
        )
    return TlsFailedError(
        f"TLS with {target.name} failed: {reason}{outcome}. If the server asks for a client"
        " certificate, set ssl_client_cert_file and ssl_client_key_file"
    )


_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
"""What OpenSSL says of plain text, in its various versions."""


def _chain(
    error: BaseException | None, handled: BaseException | None = None
) -> Iterator[BaseException]:
    while error is not None and error is not handled:
        yield error
        # redis-py raises its own errors while it handles the system's; what the system's were
        # raised within is the caller's business.
        within = error.__context__ if isinstance(error, redis.exceptions.RedisError) else None
        error = error.__cause__ or within


def _check_tls(target: Target) -> str:
    if target.tls:
        return "If it does not speak TLS on this port, use its TLS port or set ssl_enable=False"
    return "If it expects TLS, set ssl_enable=True"


def _why(error: BaseException, target: Target, handled: BaseException | None) -> str:
    """Return why a connection failed: in the system's words, if it was the system."""
    for link in _chain(error, handled):
        if isinstance(link, OSError) and link.errno:
            # asyncio puts words of its own in place of the system's; names that do not resolve
            # have negative numbers.
            return os.strerror(link.errno) if link.errno > 0 else str(link.strerror)
    return _clean(error, target)


def _clean(error: BaseException, target: Target) -> str:
    """Return the text of an error without secrets."""
    text, _, quoted = str(error).partition(_QUOTED)
    if quoted:
        text += "; its arguments are not shown"
    for secret in target.secrets:
        text = text.replace(secret, _HIDDEN)
    return text.rstrip(".")


def _caused(failure: StepRedisError, error: BaseException, target: Target) -> StepRedisError:
    """Chain the errors, unless the old one would show a secret in a traceback."""
    hidden = (_QUOTED, *target.secrets)
    leaks = any(secret in str(link) for link in _chain(error) for secret in hidden)
    failure.__cause__ = None if leaks else error
    return failure
