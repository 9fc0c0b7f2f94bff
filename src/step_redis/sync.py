"""Redis connections and Redis Streams that lose nothing: the blocking flavour.

`step_redis` has the same names for asyncio.
"""

from step_redis._sync.consumer import StepRedisConsumer
from step_redis._sync.message import StepRedisMessage
from step_redis._sync.pool import StepRedisPool
from step_redis._sync.stream import StepRedisStream
from step_redis.errors import (
    AuthenticationFailedError,
    ConfigurationError,
    ConnectionFailedError,
    DecodeError,
    DuplicateConflict,
    EncodeError,
    GroupInUseError,
    GroupNotFoundError,
    HandlerTimeoutError,
    LeaseLost,
    MessageError,
    NotAStreamError,
    OperationTimeoutError,
    PartlyPublishedError,
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
from step_redis.health import ConsumerHealth, Counters, StreamHealth
from step_redis.messages import ReceivedMessage
from step_redis.params import StepRedisPoolParams
from step_redis.policy import ConsumerOptions, Exponential, RetryPolicy
from step_redis.publishing import DelayedMessage, DelayedMessages
from step_redis.retention import HeldBack, Retention, Trimmed

__all__ = [
    "AuthenticationFailedError",
    "ConfigurationError",
    "ConnectionFailedError",
    "ConsumerHealth",
    "ConsumerOptions",
    "Counters",
    "DecodeError",
    "DelayedMessage",
    "DelayedMessages",
    "DuplicateConflict",
    "EncodeError",
    "Exponential",
    "GroupInUseError",
    "GroupNotFoundError",
    "HandlerTimeoutError",
    "HeldBack",
    "LeaseLost",
    "MessageError",
    "NotAStreamError",
    "OperationTimeoutError",
    "PartlyPublishedError",
    "PermissionDeniedError",
    "PoolClosedError",
    "PoolError",
    "PoolExhaustedError",
    "ReceivedMessage",
    "Retention",
    "RetryPolicy",
    "ServerError",
    "ServerLoadingError",
    "ServerOutOfMemoryError",
    "ServerReadOnlyError",
    "StepRedisConsumer",
    "StepRedisError",
    "StepRedisMessage",
    "StepRedisPool",
    "StepRedisPoolParams",
    "StepRedisStream",
    "StreamError",
    "StreamHealth",
    "StreamNotFoundError",
    "TlsFailedError",
    "Trimmed",
]
