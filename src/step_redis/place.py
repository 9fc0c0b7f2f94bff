"""A place in a queue, or among those that may go on at once."""

__all__ = ["Place", "nobody"]


class Place:
    """What a call takes and gives back; each call makes its own."""

    __slots__ = ("__weakref__",)


def nobody() -> None:
    """Return who has a place if nobody has: what a weak reference to it would."""
