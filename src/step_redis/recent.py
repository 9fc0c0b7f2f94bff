"""What is kept for the keys that were used last, so that any number of keys takes little memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Recent"]

T = TypeVar("T")

_LIMIT = 1000


class Recent(Generic[T]):
    """A value for each of the keys that were used last; shared by tasks and threads."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: str) -> T:
        """Return the value of a key; a new one if there is none (any more)."""
        with self._lock:
            value = self._values.pop(key, None)
            if value is None:
                value = self._make()
                if len(self._values) >= _LIMIT:
                    self._values.popitem(last=False)
            self._values[key] = value
            return value
