"""How long to wait before trying again."""

from collections.abc import Iterator
from random import uniform

__all__ = ["delays"]

_FIRST_SECONDS = 0.02
_LIMIT_SECONDS = 0.5


def delays() -> Iterator[float]:
    """Yield seconds without end: doubling up to a limit, jittered so that clients do not flock."""
    longest = _FIRST_SECONDS
    while True:
        yield uniform(longest / 2, longest)  # noqa: S311 - jitter is no secret
        longest = min(2 * longest, _LIMIT_SECONDS)
