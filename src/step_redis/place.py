"""A place in a queue, or among those that may go on at once."""

from typing import Generic, TypeVar
from weakref import ref

__all__ = ["Counted", "Place", "nobody"]

T = TypeVar("T")


class Place:
    """What a call takes and gives back; each call makes its own."""

    __slots__ = ("__weakref__",)


class Counted(Generic[T]):
    """Things that count as long as somebody holds them.

    A KeyboardInterrupt may strike between any two steps: whatever it makes somebody drop counts no
    more, once its traceback is gone too. It is a WeakSet that shows its references, since each call
    looks how many there are.
    """

    __slots__ = ("refs",)

    def __init__(self) -> None:
        self.refs: set[ref[T]] = set()

    def add(self, thing: T) -> None:
        """Count a thing from now on."""
        self.refs.add(ref(thing, self.refs.discard))

    def discard(self, thing: T) -> None:
        """Count a thing no more, though it is held."""
        self.refs.discard(ref(thing))

    def things(self) -> list[T]:
        """Return the things."""
        # Copied as one step: meanwhile others come and go.
        things = [of() for of in tuple(self.refs)]
        return [thing for thing in things if thing is not None]


def nobody() -> None:
    """Return who has a place if nobody has: what a weak reference to it would."""
