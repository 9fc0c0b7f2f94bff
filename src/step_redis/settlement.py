"""A settlement: what a consumer does with messages it holds, under whatever name it has."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs

from step_redis.lease import Attempt, Held, Outcome
from step_redis.script_calls import ScriptCall

__all__ = ["BuildCall", "Settlement"]

BuildCall: TypeAlias = Callable[[str, list[str]], ScriptCall]
"""Makes the call of a consumer's name and the ids of the messages."""


@attrs.define(eq=False)
class Settlement:
    """Messages and what is done with them."""

    held: list[Held]
    attempt: Attempt
    call: BuildCall
    counter: str
    """Which of the consumer's counters counts it."""
    is_copy: bool = False
    is_due_soon: bool = False
    """Whether the messages are due before the next beat."""
    written: str | None = None
    """The id of the entry that was written, if one was and its reply came."""

    @property
    def open(self) -> list[Held]:
        """What is not settled yet, nor lost."""
        return [held for held in self.held if held.outcome is None]

    def not_owned(self, open_ids: Sequence[str], reply: Sequence[Any]) -> frozenset[str]:
        """Read a reply; return the ids that were not pending with the consumer."""
        if not self.is_copy:
            return frozenset(message_id.decode() for message_id in reply[1:])
        if len(reply) == 1:
            return frozenset(open_ids)
        self.written = reply[1].decode()
        return frozenset()

    @property
    def outcome(self) -> Outcome:
        """How it ended: settled only if all were."""
        outcomes = {held.outcome for held in self.held}
        if None in outcomes:
            return Outcome.LOST
        for outcome in (Outcome.LOST, Outcome.UNKNOWN):
            if outcome in outcomes:
                return outcome
        return Outcome.SETTLED
