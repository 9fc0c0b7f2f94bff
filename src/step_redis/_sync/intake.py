# Generated from _async/intake.py by build_hooks/generate_sync.py. Do not edit.
"""The job that reads what is new for a membership."""

from redis.exceptions import ResponseError

from step_redis._backend import threads
from step_redis.backoff import delays
from step_redis.commands import new_deliveries, xreadgroup
from step_redis.deadline import lease_now
from step_redis.errors import GroupNotFoundError, StepRedisError
from step_redis.failures import is_reply, reply_failure
from step_redis.outage import passes_by_itself
from step_redis.place import Place

from .membership import Membership
from .settler import Settler

BLOCK_SECONDS = 1.0
"""The longest BLOCK of one read: so long may stopping wait for it."""


class Intake:
    """Reads while there is room; what comes too late is handed back."""

    def __init__(self, membership: Membership, settler: Settler) -> None:
        self._membership = membership
        self._settler = settler

    def read(self) -> None:
        """Read new messages while there is room for them, until it is to leave."""
        pauses = delays()
        while (turn := self._next_read()) is not None:
            try:
                self._read_once(*turn)
            except StepRedisError as error:
                if not passes_by_itself(error):
                    raise
                threads.sleep(next(pauses))
            else:
                pauses = delays()
            if not self._membership.is_open:
                self._settler.hand_back()

    def _next_read(self) -> tuple[str, int] | None:
        """Wait until there is room; return the name to read under and how many to read."""
        with self._membership.shared.guard:
            while not self._membership.is_ending:
                name, room = self._membership.member.name, self._membership.room()
                if (
                    self._membership.is_open
                    and name is not None
                    and room > 0
                    and self._membership.is_half_empty()
                ):
                    return name, room
                self._membership.changed.wait(None)
        return None

    def _read_once(self, name: str, count: int) -> None:
        place = Place()
        try:
            self._membership.shared.connections.reserve_reader(place, None)
            with self._membership.shared.guard:
                if not self._membership.is_open or self._membership.member.name != name:
                    return
            [reply] = self._membership.shared.connections.read(
                xreadgroup(
                    *(self._membership.stream, self._membership.group, name),
                    count=count,
                    block_ms=int(1000 * BLOCK_SECONDS),
                ),
                wait_seconds=BLOCK_SECONDS,
                effect="messages that it took are found next",
                within=None,
            )
        except StepRedisError as error:
            if error.outcome_unknown:
                with self._membership.shared.guard:
                    self._membership.broke(name)
            raise
        finally:
            self._membership.shared.connections.free_reader(place)
        if is_reply(reply, "UNBLOCKED"):
            # The stream vanished or its server was demoted: the next beat tells.
            with self._membership.shared.guard:
                self._membership.ring()
            return
        if isinstance(reply, ResponseError):
            failure = reply_failure(reply, self._membership.shared.connections.target)
            if not isinstance(failure, GroupNotFoundError):
                raise failure
            with self._membership.shared.guard:
                if self._membership.member.name == name:
                    self._membership.lose("its group is gone")
            return
        with self._membership.shared.guard:
            new = self._membership.member.read(name, new_deliveries(reply), lease_now())
            if new is None:
                self._membership.group_was_replaced()
            else:
                self._membership.arrived(new)
