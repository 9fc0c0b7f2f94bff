"""The clock, and a moment until which something may wait."""

import time
from functools import partial
from time import monotonic

import attrs

__all__ = ["Deadline", "lease_now", "now"]

now = monotonic


_LEASE_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

lease_now = partial(time.clock_gettime, _LEASE_CLOCK)
"""The seconds on a clock that goes on while the machine sleeps, if there is one.

The server's clock goes on too, and ends leases by it.
"""


@attrs.frozen
class Deadline:
    """A moment on the monotonic clock, or never."""

    at: float | None

    @classmethod
    def after(cls, seconds: float | None) -> "Deadline":
        """Return the deadline that many seconds from now; None means never."""
        return cls(None if seconds is None else now() + seconds)

    def left(self) -> float | None:
        """Return the seconds that are left, never less than 0; None means for ever."""
        return None if self.at is None else max(0.0, self.at - now())

    @property
    def passed(self) -> bool:
        """Whether the moment is over."""
        return self.at is not None and now() >= self.at
