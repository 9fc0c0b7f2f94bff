"""Redis connections and Redis Streams that lose nothing: the blocking flavour.

`step_redis` has the same names for asyncio.
"""

from step_redis._sync.pool import StepRedisPool
from step_redis._sync.stream import StepRedisStream
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
