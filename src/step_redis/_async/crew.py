# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""The workers of a consumer: each handles one message at a time, until it is settled."""

from collections.abc import Sequence
from contextlib import suppress

from step_redis._backend import aio
from step_redis.arguments import HandlerKindError
from step_redis.dead_letters import text_of
from step_redis.deadline import Deadline, lease_now
from step_redis.errors import ConfigurationError, HandlerTimeoutError, LeaseLost

from .branch import Branch
from .case import Case
from .membership import Shared
from .message import StepRedisMessage

_CANCEL_SECONDS = 1.0
"""How long handlers that are ended may take for it."""

_PUT_OFF_SECONDS = 1.0
"""How long a message is put off whose former handling has not ended."""

_LOOK_SECONDS = 0.5
"""How often handlers that take too long are looked for."""

TURN_SECONDS = 0.0005
"""How long handlers that never wait may keep what else is to be done from going on."""


class Crew:
    """Takes messages from all branches in turn, and has them handled."""

    def __init__(self, shared: Shared, name: str, branches: Sequence[Branch]) -> None:
        self._shared, self._guard = shared, shared.guard
        self._options = shared.options
        self._logger = shared.logger
        self._name = name
        self._branches = branches
        self._turn = 0
        self._workers: list[aio.Worker] = []
        self._working = 0
        self._is_over = False
        self.hurry = False
        """Whether handlers are not waited for."""
        self._taken_at = self._turn_at = 0.0

    def start(self, handle: aio.Handler[StepRedisMessage]) -> None:
        """Start as many workers as messages may be handled at once."""
        for _ in range(self._options.concurrency):
            self._start_worker(handle)

    async def end(self, grace_seconds: float) -> None:
        """Wait for handlers that are under way, so long; then end those that can be ended."""
        ends = Deadline.after(grace_seconds)
        if not await self._workers_ended(grace_seconds):
            can_end = self.cancel()
            hurried, self.hurry = self.hurry, False
            if not await self._workers_ended(_CANCEL_SECONDS if can_end else 0):
                self._logger.warning(
                    "%d handlers of %s did not end in time; their messages are handed back, and"
                    " delivered again",
                    *(self._working, self._name),
                )
            self.hurry = self.hurry or hurried
        await self._acknowledged(ends)
        with self._guard:
            for branch in self._branches:
                branch.handling.clear()

    async def _acknowledged(self, ends: Deadline) -> None:
        """Wait until what was handled is acknowledged: until then, or at least a moment."""
        least = Deadline.after(_CANCEL_SECONDS)
        with self._guard:
            while not all(branch.settler.is_idle for branch in self._branches):
                deadline = least if self.hurry or ends.passed else ends
                if deadline.passed:
                    return
                await self._shared.changed.wait(deadline.left())

    def cancel(self) -> bool:
        """Ask handlers to end at once; return whether that can help."""
        can_end = [worker.cancel() for worker in self._workers]
        return any(can_end)

    async def _workers_ended(self, seconds: float) -> bool:
        deadline = Deadline.after(seconds)
        with self._guard:
            while self._working and not self.hurry and not deadline.passed:
                await self._shared.changed.wait(deadline.left())
            self._is_over = True
            return not self._working

    def _start_worker(self, handle: aio.Handler[StepRedisMessage]) -> None:
        with self._guard:
            self._working += 1
        name = f"step_redis worker of {self._name}"
        self._workers.append(aio.start_worker(name, self._work, handle))

    async def _work(self, handle: aio.Handler[StepRedisMessage]) -> None:
        case: Case | None = None
        try:
            while True:
                with self._guard:
                    case = self._take(by_worker=True)
                if case is None or case.is_odd:
                    case = await self.next(case, by_worker=True)
                    if case is None:
                        return
                await self._handle(handle, case)
                if case.abandoned:
                    return
                if self._taken_at - self._turn_at > TURN_SECONDS:
                    await aio.give_way()
                    self._turn_at = lease_now()
        except BaseException as error:  # noqa: BLE001 - run raises it
            if not aio.is_being_cancelled():
                self._shared.fail(error)
        finally:
            with self._guard:
                if case is None or not case.abandoned:
                    self._working -= 1
                    self._shared.changed.wake()

    async def next(self, case: Case | None = None, *, by_worker: bool) -> Case | None:
        """Wait for a message to handle; None when it is time to stop.

        Args:
            case: One that was taken already, with which there is something.
            by_worker: Whether one of ours handles it; else whoever iterates does.
        """
        while True:
            case = case or await self._wait(by_worker=by_worker)
            if case is None or not case.is_odd:
                return case
            try:
                if case.is_second:
                    # A handler that lost the lease is still at it here.
                    await case.put_off(_PUT_OFF_SECONDS)
                elif case.lost_too_often:
                    await self._give_up(
                        case, "MaxLostDeliveries", "it was lost with its consumer too often"
                    )
                else:
                    return case
            except LeaseLost:
                self._over(case)
            case = None

    async def _wait(self, *, by_worker: bool) -> Case | None:
        """Wait until a message can be taken; None when it is time to stop.

        What arrives wakes one of those who wait, and each who was woken wakes another one if there
        is more: so no more are woken than there is work for.
        """
        has_waited = False
        while True:
            with self._guard:
                if not by_worker:
                    for case in self.handling():
                        if case.is_settled:
                            self._over(case)
                if self._shared.is_over:
                    return None
                if (taken := self._take(by_worker=by_worker)) is not None:
                    if has_waited and any(one.membership.ready for one in self._branches):
                        self._shared.arrivals.wake_one()
                    return taken
                unsent = [one.settler for one in self._branches if one.settler.can_send]
                if not unsent:
                    has_waited = True
                    await self._shared.arrivals.wait(None)
            # There is nothing else to do.
            for settler in unsent:
                settler.send()

    def _take(self, *, by_worker: bool) -> Case | None:
        """Take what is ready, from each stream in turn; the guard is held."""
        shared, branches = self._shared, self._branches
        if shared.stopping or shared.failure is not None:
            return None
        at = self._taken_at = lease_now()
        for _ in branches:
            self._turn = turn = (self._turn + 1) % len(branches)
            branch = branches[turn]
            membership = branch.membership
            if not membership.ready or branch.settler.holds_up(at):
                continue
            held = membership.take(at)
            if held is None:
                continue
            case = Case(branch, held, by_worker)
            if self._options.handler_timeout_seconds is not None:
                case.time = aio.HandlingTime(self._options.handler_timeout_seconds)
            case.is_second = branch.handling.setdefault(held.delivery.id, case) is not case
            case.is_odd = case.is_second or held.delivery.lost > 0
            return case
        return None

    def handling(self) -> list[Case]:
        """Return what is being handled; the guard is held."""
        return [case for branch in self._branches for case in branch.handling.values()]

    def _over(self, case: Case) -> None:
        handling, message_id = case.branch.handling, case.held.delivery.id
        with self._guard:
            if handling.get(message_id) is case:
                del handling[message_id]

    async def _handle(self, handle: aio.Handler[StepRedisMessage], case: Case) -> None:
        message = StepRedisMessage(case)
        try:
            if case.may_be_unreadable and message.error is not None:
                await self._give_up(case, "DecodeError", message.error)
                return
            try:
                if case.time is None:
                    await aio.checked(handle(message))
                else:
                    await case.time.handle(handle, message)
            except HandlerKindError as error:
                raise ConfigurationError(str(error)) from None
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                if aio.is_being_cancelled():
                    raise
                await self._failed(case, error)
        except LeaseLost:
            # It was logged; the group delivers the message again, or somebody settled it.
            self._over(case)
        except BaseException:
            self._over(case)
            raise
        else:
            self._handled(case)

    def _handled(self, case: Case) -> None:
        """Have a message acknowledged that was handled, unless that or the like was done."""
        held, settler, handling = case.held, case.branch.settler, case.branch.handling
        with self._guard:
            if handling.get(held.delivery.id) is case:
                del handling[held.delivery.id]
            if held.settling or held.outcome is not None:
                return
            is_enough = settler.gather(held)
        if is_enough:
            settler.send()

    async def _failed(self, case: Case, error: BaseException) -> None:
        """Retry a message whose handling failed, or give it up."""
        message = StepRedisMessage(case)
        if case.is_settled:
            if not isinstance(error, LeaseLost):
                self._logger.warning(
                    "the handler failed after %r was settled or lost", message, exc_info=error
                )
            return
        if await case.fail(error):
            self._logger.warning(
                "handling %r failed and is retried: %s: %s",
                *(message, type(error).__qualname__, text_of(error)),
            )
        else:
            self._logger.error(
                "handling %r failed; it went to the dead-letter stream", message, exc_info=error
            )

    async def _give_up(self, case: Case, kind: str, text: str) -> None:
        """Move a message to the dead-letter stream without handling it."""
        if await case.bury(kind, text):
            self._logger.error(
                "%r went to the dead-letter stream without being handled: %s",
                *(StepRedisMessage(case), text),
            )
        self._over(case)

    async def watch(self, handle: aio.Handler[StepRedisMessage] | None) -> None:
        """Give up on handlers that take too long and cannot be ended, or do not end."""
        limit = (self._options.handler_timeout_seconds or 0) + _LOOK_SECONDS
        while True:
            with self._guard:
                await self._shared.changed.wait(_LOOK_SECONDS)
                if self._is_over:
                    return
                overdue = [
                    case for case in self.handling() if case.is_open and case.seconds > limit
                ]
                for case in overdue:
                    case.abandoned = True
                    self._over(case)
                    self._working -= case.by_worker
                    self._shared.counters.handlers_abandoned += 1
            for case in overdue:
                if case.by_worker and handle is not None:
                    self._start_worker(handle)
                await self._abandon(case)

    async def _abandon(self, case: Case) -> None:
        error = HandlerTimeoutError(
            f"the handler took longer than {self._options.handler_timeout_seconds:g} s"
            " (handler_timeout_seconds)"
        )
        message = StepRedisMessage(case)
        self._logger.error("%r: the handler cannot be ended and is left behind", message)
        with suppress(LeaseLost):
            await self._failed(case, error)
