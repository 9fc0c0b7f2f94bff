"""The import path of the architecture document for the asyncio pool and its parameters."""

from step_redis import StepRedisPool, StepRedisPoolParams

__all__ = ["StepRedisPool", "StepRedisPoolParams"]
