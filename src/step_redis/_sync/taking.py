# Generated from _async/taking.py by build_hooks/generate_sync.py. Do not edit.
"""Who takes which message of a consumer, and when."""

from collections.abc import Sequence

from step_redis._backend import threads
from step_redis.deadline import lease_now
from step_redis.errors import LeaseLost
from step_redis.place import Place

from .branch import Branch
from .case import Case
from .membership import Shared
from .message import StepRedisMessage

_PUT_OFF_SECONDS = 1.0
"""How long a message is put off whose former handling has not ended."""


class Taking:
    """Hands out messages of all branches in turn, and knows which are being handled."""

    def __init__(self, shared: Shared, branches: Sequence[Branch]) -> None:
        self._shared, self._guard = shared, shared.guard
        self._branches = branches
        self._handler_seconds = shared.options.handler_timeout_seconds
        self._turn = 0
        self.looked_at = 0.0
        """When somebody last looked for a message."""

    def next(self, case: Case | None = None, *, worker: Place | None = None) -> Case | None:
        """Wait for a message to handle; None when it is time to stop.

        Args:
            case: One that was taken already, with which there is something.
            worker: Who handles it, if it is one of ours; else whoever iterates does.
        """
        while True:
            case = case or self._wait(worker)
            if case is None or not case.is_odd:
                return case
            try:
                if case.is_second:
                    # A handler that lost the lease is still at it here.
                    case.put_off(_PUT_OFF_SECONDS)
                elif case.lost_too_often:
                    self.give_up(
                        case, "MaxLostDeliveries", "it was lost with its consumer too often"
                    )
                else:
                    return case
            except LeaseLost:
                self.over(case)
            case = None

    def _wait(self, worker: Place | None) -> Case | None:
        """Wait until a message can be taken; None when it is time to stop.

        What arrives wakes one of those who wait, and each who was woken wakes another one if there
        is more: so no more are woken than there is work for.
        """
        has_waited = False
        while True:
            with self._guard:
                if worker is None:
                    for case in self.handling():
                        if case.is_settled:
                            self.over(case)
                if self._shared.is_over:
                    return None
                if (taken := self.take(worker)) is not None:
                    if has_waited and any(one.membership.ready for one in self._branches):
                        self._shared.arrivals.wake_one()
                    return taken
                unsent = [one.gathering for one in self._branches if one.gathering.can_send]
                if not unsent:
                    has_waited = True
                    self._shared.arrivals.wait(None)
            # There is nothing else to do.
            for gathering in unsent:
                gathering.send()

    def take(self, worker: Place | None) -> Case | None:
        """Take what is ready, from each stream in turn; the guard is held."""
        shared, branches = self._shared, self._branches
        if shared.stopping or shared.failure is not None:
            return None
        at = self.looked_at = lease_now()
        for _ in branches:
            self._turn = turn = (self._turn + 1) % len(branches)
            branch = branches[turn]
            membership = branch.membership
            if not membership.ready:
                continue
            if at > branch.gathering.stops_at:
                branch.gathering.held_up()
                continue
            held = membership.take(at)
            if held is None:
                continue
            case = Case(branch, held, worker)
            if self._handler_seconds is not None:
                case.time = threads.HandlingTime(self._handler_seconds)
            case.is_second = branch.handling.setdefault(held.id, case) is not case
            case.is_odd = case.is_second or held.lost > 0
            return case
        return None

    def handling(self) -> list[Case]:
        """Return what is being handled; the guard is held."""
        return [case for branch in self._branches for case in branch.handling.values()]

    def handled(self, case: Case) -> bool:
        """Have a message acknowledged that was handled, unless that or the like was done.

        Returns:
            Whether enough wait for that to be sent. The guard is held.
        """
        branch, held = case.branch, case.held
        if branch.handling.get(held.id) is case:
            del branch.handling[held.id]
        if held.settling or held.outcome is not None:
            return False
        return branch.gathering.gather(held)

    def over(self, case: Case) -> None:
        """A message is not being handled any more."""
        handling, message_id = case.branch.handling, case.held.id
        with self._guard:
            if handling.get(message_id) is case:
                del handling[message_id]

    def give_up(self, case: Case, kind: str, text: str) -> None:
        """Move a message to the dead-letter stream without having it handled."""
        try:
            if case.bury(kind, text):
                self._shared.logger.error(
                    "%r went to the dead-letter stream without being handled: %s",
                    *(StepRedisMessage(case), text),
                )
        finally:
            self.over(case)
