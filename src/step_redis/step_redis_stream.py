"""The import path of the architecture document for the asyncio stream."""

from step_redis import StepRedisStream

__all__ = ["StepRedisStream"]
