"""A place in a queue, or among those that may go on at once."""

__all__ = ["Place"]


class Place:
    """What a call takes and gives back; each call makes its own."""

    __slots__ = ("__weakref__",)
