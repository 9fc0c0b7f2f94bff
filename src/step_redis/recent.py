"""What is kept for keys that were used lately, so that it does not pile up."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from os import getpid
from typing import Any, Generic, TypeVar

from step_redis.deadline import now

__all__ = ["Recent"]

T = TypeVar("T")

_EXACT_SECONDS = 1.0


class Recent(Generic[T]):
    """A value for each key that was used within so many seconds; shared by tasks and threads."""

    def __init__(self, make: Callable[[Any], T], seconds: float) -> None:
        self._make, self._seconds = make, seconds
        self._exact_seconds = min(_EXACT_SECONDS, seconds / 2)
        self._begin()

    def _begin(self) -> None:
        self._values: OrderedDict[Hashable, tuple[T, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._process = getpid()

    def of(self, key: Hashable) -> T:
        """Return the value of a key; a new one, made of the key, if there is none any more."""
        if self._process != getpid():
            # After a fork the values are the parent's, and a thread of its may hold the lock.
            self._begin()
        at = now()
        found = self._values.get(key)
        if found is not None and at - found[1] < self._exact_seconds:
            return found[0]
        with self._lock:
            found = self._values.pop(key, None)
            value = self._make(key) if found is None else found[0]
            self._values[key] = value, at
            while next(iter(self._values.values()))[1] < at - self._seconds:
                self._values.popitem(last=False)
            return value
