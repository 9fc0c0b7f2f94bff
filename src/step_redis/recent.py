"""What is kept for keys that were used lately, so that it does not pile up."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from step_redis.deadline import now

__all__ = ["Recent"]

T = TypeVar("T")


class Recent(Generic[T]):
    """A value for each key that was used within so many seconds; shared by tasks and threads."""

    def __init__(self, make: Callable[[], T], seconds: float) -> None:
        self._make, self._seconds = make, seconds
        self._values: OrderedDict[str, tuple[T, float]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: str) -> T:
        """Return the value of a key; a new one if there is none any more."""
        at = now()
        with self._lock:
            found = self._values.pop(key, None)
            value = self._make() if found is None else found[0]
            self._values[key] = value, at
            while next(iter(self._values.values()))[1] < at - self._seconds:
                self._values.popitem(last=False)
            return value
