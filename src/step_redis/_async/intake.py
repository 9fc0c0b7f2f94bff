# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""The job that reads what is new for a membership."""

from redis.exceptions import ResponseError

from step_redis._backend import aio
from step_redis.backoff import delays
from step_redis.commands import new_deliveries, xreadgroup
from step_redis.deadline import lease_now
from step_redis.errors import GroupNotFoundError, StepRedisError
from step_redis.failures import is_reply, reply_failure
from step_redis.outage import passes_by_itself
from step_redis.place import Place

from .membership import Membership
from .settler import Settler

BLOCK_SECONDS = 0.5
"""The longest BLOCK of one read: so long may stopping wait for it."""

_FEW = 16
"""So many messages are soon handled."""


class Intake:
    """Reads while there is room; what comes too late is handed back."""

    def __init__(self, membership: Membership, settler: Settler) -> None:
        self._membership = membership
        self._settler = settler

    async def read(self) -> None:
        """Read new messages while there is room for them, until it is to leave."""
        pauses = delays()
        while await self._has_work():
            try:
                await self._work()
            except StepRedisError as error:
                if not passes_by_itself(error):
                    raise
                await aio.sleep(next(pauses))
            else:
                pauses = delays()

    async def _has_work(self) -> bool:
        """Wait until there is something to read or to hand back; False if it is to leave."""
        membership = self._membership
        with membership.shared.guard:
            while not membership.is_ending:
                if self._turn() is not None or (membership.ready and not membership.is_open):
                    return True
                await membership.changed.wait(None)
        return False

    def _turn(self) -> tuple[str, int] | None:
        """Return the name to read under and how many to read, if it is time to; guarded."""
        membership = self._membership
        membership.asked = False
        name, room = membership.member.name, membership.room()
        may_read = membership.is_open and not membership.redrives and membership.is_half_empty()
        return (name, room) if may_read and room > 0 and name is not None else None

    async def _work(self) -> None:
        with self._membership.shared.guard:
            turn = self._turn()
        if turn is not None:
            await self._read_once(*turn)
        if not self._membership.is_open:
            await self._settler.hand_back()

    async def _read_once(self, name: str, count: int) -> None:
        place = Place()
        try:
            await self._membership.shared.connections.reserve_reader(place, None)
            with self._membership.shared.guard:
                if not self._membership.is_open or self._membership.member.name != name:
                    return
            [reply] = await self._membership.shared.connections.read(
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
                self._membership.was_lost()
            else:
                self._membership.arrived(new)
        if new and len(new) < _FEW:
            # Their handling begins before the next read is made.
            await aio.give_way()
