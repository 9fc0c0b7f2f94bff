"""Redis connections and Redis Streams that lose nothing: the asyncio flavour.

`step_redis.sync` has the same names for blocking code.
"""

from step_redis._async.pool import StepRedisPool
from step_redis._async.stream import StepRedisStream
from step_redis.errors import (
    AuthenticationFailedError,
    ConfigurationError,
    ConnectionFailedError,
    DecodeError,
    EncodeError,
    GroupNotFoundError,
    MessageError,
    NotAStreamError,
    OperationTimeoutError,
    PermissionDeniedError,
    PoolClosedError,
    PoolError,
    PoolExhaustedError,
    ServerError,
    ServerLoadingError,
    ServerOutOfMemoryError,
    ServerReadOnlyError,
    StepRedisError,
    StreamError,
    StreamNotFoundError,
    TlsFailedError,
)
from step_redis.messages import ReceivedMessage
from step_redis.params import StepRedisPoolParams

__all__ = [
    "AuthenticationFailedError",
    "ConfigurationError",
    "ConnectionFailedError",
    "DecodeError",
    "EncodeError",
    "GroupNotFoundError",
    "MessageError",
    "NotAStreamError",
    "OperationTimeoutError",
    "PermissionDeniedError",
    "PoolClosedError",
    "PoolError",
    "PoolExhaustedError",
    "ReceivedMessage",
    "ServerError",
    "ServerLoadingError",
    "ServerOutOfMemoryError",
    "ServerReadOnlyError",
    "StepRedisError",
    "StepRedisPool",
    "StepRedisPoolParams",
    "StepRedisStream",
    "StreamError",
    "StreamNotFoundError",
    "TlsFailedError",
]
