"""The errors of step_redis: one root, below it one branch for each layer.

Where redis-py has an error of the same meaning, ours is a subclass of it too, so that code
written for redis-py goes on catching what it used to catch.
"""

import builtins

import redis.exceptions

__all__ = [
    "AuthenticationFailedError",
    "ConfigurationError",
    "ConnectionFailedError",
    "DecodeError",
    "DuplicateConflict",
    "EncodeError",
    "GroupInUseError",
    "GroupNotFoundError",
    "HandlerTimeoutError",
    "LeaseLost",
    "MessageError",
    "NotAStreamError",
    "OperationTimeoutError",
    "PartlyPublishedError",
    "PermissionDeniedError",
    "PoolClosedError",
    "PoolError",
    "PoolExhaustedError",
    "ServerError",
    "ServerLoadingError",
    "ServerOutOfMemoryError",
    "ServerReadOnlyError",
    "StepRedisError",
    "StreamError",
    "StreamNotFoundError",
    "TlsFailedError",
]


class StepRedisError(Exception):
    """Anything step_redis raises.

    Attributes:
        stream: The stream it is about, or None.
        group: The consumer group it is about, or None.
        consumer: The consumer it is about, or None.
        message_id: The id of the entry it is about, or None.
        outcome_unknown: True if the command was sent and its reply was lost, so that the server
            may have carried it out; False if it certainly did not.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.stream: str | None = None
        self.group: str | None = None
        self.consumer: str | None = None
        self.message_id: str | None = None
        self.outcome_unknown = outcome_unknown

    def __str__(self) -> str:
        about = ", ".join(
            f"{label} {value!r}"
            for label, value in (
                ("stream", self.stream),
                ("group", self.group),
                ("consumer", self.consumer),
                ("message", self.message_id),
            )
            if value is not None
        )
        return f"{self.args[0]} ({about})" if about else str(self.args[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class ConfigurationError(StepRedisError, ValueError):
    """A parameter or an argument has a value that cannot work; nothing was sent."""


class PartlyPublishedError(StepRedisError):
    """Publishing several messages ended amid them; ``__cause__`` says why.

    Per stream, what was written comes first, then what may have been written; what follows was not.
    ``outcome_unknown`` is True if there is something that may have been.

    Attributes:
        written: For each stream of the call the ids of its messages that were written, in order
            from the first; maybe none.
        unknown: For each stream of the call, how many messages after those may have been written.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown)
        self.written: dict[str, list[str]] = {}
        self.unknown: dict[str, int] = {}


class PoolError(StepRedisError):
    """There is no usable connection to the server."""


class ConnectionFailedError(PoolError, redis.exceptions.ConnectionError):
    """The server cannot be reached, or the connection broke."""


class TlsFailedError(ConnectionFailedError):
    """The TLS handshake failed: certificate, host name, client key, or no TLS at all."""


class AuthenticationFailedError(PoolError, redis.exceptions.AuthenticationError):
    """The server refused the user name or the password, or asks for one."""


class PermissionDeniedError(PoolError, redis.exceptions.NoPermissionError):
    """The user may not run this command or touch this key (``NOPERM``)."""


class PoolExhaustedError(PoolError, redis.exceptions.MaxConnectionsError):
    """All connections stayed in use for ``connection_available_timeout`` seconds."""


class PoolClosedError(PoolError):
    """The pool or the stream was closed."""


class OperationTimeoutError(PoolError, redis.exceptions.TimeoutError, builtins.TimeoutError):
    """The server did not answer in time."""


class ServerError(StepRedisError, redis.exceptions.ResponseError):
    """The server answered with an error.

    Attributes:
        code: The word that the server's answer began with, as in ``BUSY``, or "".
    """

    code = ""


class ServerLoadingError(ServerError, redis.exceptions.BusyLoadingError):
    """The server is still loading its data (``LOADING``)."""


class ServerReadOnlyError(ServerError, redis.exceptions.ReadOnlyError):
    """The server is a replica and takes no writes (``READONLY``)."""


class ServerOutOfMemoryError(ServerError, redis.exceptions.OutOfMemoryError):
    """The server has reached its ``maxmemory`` (``OOM``)."""


class StreamError(StepRedisError):
    """The stream or the group is not what the call needs."""


class StreamNotFoundError(StreamError):
    """There is no such stream, and the call was told not to make one."""


class GroupNotFoundError(StreamError):
    """There is no such stream, or no such consumer group on it (``NOGROUP``)."""


class GroupInUseError(StreamError):
    """Consumers are at work in the group that was to be forgotten; nothing was changed."""


class NotAStreamError(StreamError):
    """The key holds something else than a stream (``WRONGTYPE``)."""


class MessageError(StepRedisError):
    """A message cannot be turned into an entry, or an entry into a message."""


class EncodeError(MessageError, redis.exceptions.DataError):
    """A message holds something that cannot be stored faithfully; nothing was sent."""


class DecodeError(MessageError):
    """An entry says of itself what is not so; ``receive_message`` hands it over with ``error``."""


class DuplicateConflict(MessageError):  # noqa: N818 - the field's word for it
    """Another message was published with the same ``dedup_id``; nothing was written.

    Attributes:
        first_id: The id of the one that was published, or its handle if it was delayed.
    """

    first_id = ""


class LeaseLost(MessageError):  # noqa: N818 - the field's word for it
    """The message is not this consumer's any more, or was settled already; nothing was changed.

    If ``outcome_unknown`` is True, the lease was lost while the reply to the settlement was: it
    may have been carried out. If not, the message is delivered again.
    """


class HandlerTimeoutError(MessageError, builtins.TimeoutError):
    """A handler took longer than ``handler_timeout_seconds``; it counts as a failed delivery."""
