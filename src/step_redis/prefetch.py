"""How many messages a consumer holds ready: many while it is fast, few while it is slow."""

import attrs

__all__ = ["Prefetch"]

_SHORT_SECONDS = 0.1
_LONG_SECONDS = 0.5


@attrs.define
class Prefetch:
    """The limit on what is ready, between `least` and `most`.

    What is held ready is kept from other consumers. So it doubles while messages are taken soon
    after they came, and halves when they have to wait.
    """

    least: int
    most: int
    limit: int = attrs.field(init=False)
    _longest_wait: float | None = None
    """Of what was taken since messages came; None if nothing was."""

    def __attrs_post_init__(self) -> None:
        self.limit = self.least

    def taken(self, waited_seconds: float) -> None:
        """A message was taken that had been ready for so long."""
        self._longest_wait = max(self._longest_wait or 0, waited_seconds)

    def came(self) -> None:
        """More messages came."""
        waited, self._longest_wait = self._longest_wait, None
        if waited is None:
            return
        if waited > _LONG_SECONDS:
            self.limit = max(self.least, self.limit // 2)
        elif waited < _SHORT_SECONDS:
            self.limit = min(self.most, 2 * self.limit)
