# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""The workers of a consumer: each handles one message at a time, until it is settled."""

from collections.abc import Sequence
from contextlib import suppress

import attrs

from step_redis._backend import aio
from step_redis.arguments import HandlerKindError
from step_redis.dead_letters import text_of
from step_redis.deadline import Deadline, lease_now, now
from step_redis.errors import ConfigurationError, HandlerTimeoutError, LeaseLost

from .case import Case
from .intake import Intake
from .keeper import Keeper
from .membership import Membership, Shared
from .message import StepRedisMessage
from .settler import Settler

_CANCEL_SECONDS = 1.0
"""How long handlers that are ended may take for it."""

_PUT_OFF_SECONDS = 1.0
"""How long a message is put off whose former handling has not ended."""

_LOOK_SECONDS = 0.5
"""How often handlers that take too long are looked for."""


@attrs.frozen(eq=False)
class Branch:
    """A consumer's part in one group, with those who work on it."""

    membership: Membership
    settler: Settler
    keeper: Keeper
    intake: Intake
    dead: str
    """The dead-letter stream."""

    @classmethod
    def of(cls, membership: Membership, dead: str) -> "Branch":
        """Return a membership with those who work on it."""
        settler = Settler(membership)
        return cls(membership, settler, Keeper(membership), Intake(membership, settler), dead)


@attrs.define(eq=False)
class Handling:
    """A message that is being handled."""

    case: Case
    message: StepRedisMessage
    by_worker: bool
    """Whether by one of ours; else by whoever iterates."""
    abandoned: bool = False
    """Whether it took too long and somebody else goes on in its place."""

    @property
    def is_open(self) -> bool:
        """Whether its handler may be at it, and not in the midst of settling it."""
        held = self.case.held
        return not held.settling and (self.by_worker or held.outcome is None)


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
        self.handling: dict[tuple[str, str], Handling] = {}

    def start(self, handle: aio.Handler[StepRedisMessage]) -> None:
        """Start as many workers as messages may be handled at once."""
        for _ in range(self._options.concurrency):
            self._start_worker(handle)

    async def end(self, grace_seconds: float) -> None:
        """Wait for handlers that are under way, so long; then end those that can be ended."""
        if not await self._workers_ended(grace_seconds):
            can_end = self.cancel()
            self.hurry = False
            if not await self._workers_ended(_CANCEL_SECONDS if can_end else 0):
                self._logger.warning(
                    "%d handlers of %s did not end in time; their messages are handed back, and"
                    " delivered again",
                    *(self._working, self._name),
                )
        with self._guard:
            self.handling.clear()

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
        handling: Handling | None = None
        try:
            while (handling := await self.next(by_worker=True)) is not None:
                await self._handle(handle, handling)
                if handling.abandoned:
                    return
        except BaseException as error:  # noqa: BLE001 - run raises it
            if not aio.is_being_cancelled():
                self._shared.fail(error)
        finally:
            with self._guard:
                if handling is None or not handling.abandoned:
                    self._working -= 1
                    self._shared.changed.wake()

    async def next(self, *, by_worker: bool) -> Handling | None:
        """Wait for a message to handle; None when it is time to stop."""
        while True:
            with self._guard:
                while True:
                    if self._shared.is_over:
                        return None
                    handling, is_second = self._take(by_worker=by_worker)
                    if handling is not None:
                        break
                    await self._shared.arrivals.wait(None)
            try:
                if is_second:
                    # A handler that lost the lease is still at it here.
                    await handling.case.put_off(_PUT_OFF_SECONDS)
                elif handling.case.lost_too_often:
                    await self._give_up(
                        handling, "MaxLostDeliveries", "it was lost with its consumer too often"
                    )
                else:
                    return handling
            except LeaseLost:
                self._over(handling)

    def _take(self, *, by_worker: bool) -> tuple[Handling | None, bool]:
        """Take what is ready, from each stream in turn; whether it is being handled already."""
        if not by_worker:
            settled = [one for one in self.handling.values() if one.case.is_settled]
            for handling in settled:
                self._over(handling)
        at = lease_now()
        for _ in self._branches:
            self._turn = (self._turn + 1) % len(self._branches)
            branch = self._branches[self._turn]
            held = branch.membership.take(at)
            if held is not None:
                time = aio.HandlingTime(self._options.handler_timeout_seconds)
                case = Case(branch.membership, branch.settler, held, branch.dead, time)
                handling = Handling(case, StepRedisMessage(case), by_worker)
                is_second = case.key in self.handling
                if not is_second:
                    self.handling[case.key] = handling
                return handling, is_second
        return None, False

    def _over(self, handling: Handling) -> None:
        with self._guard:
            if self.handling.get(handling.case.key) is handling:
                del self.handling[handling.case.key]

    async def _handle(self, handle: aio.Handler[StepRedisMessage], handling: Handling) -> None:
        message = handling.message
        try:
            if message.error is not None:
                await self._give_up(handling, "DecodeError", message.error)
                return
            try:
                await handling.case.time.handle(handle, message)
            except HandlerKindError as error:
                raise ConfigurationError(str(error)) from None
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                if aio.is_being_cancelled():
                    raise
                await self._failed(handling, error)
            else:
                if not handling.case.is_settled:
                    await handling.case.ack()
        except LeaseLost:
            # It was logged; the group delivers the message again, or somebody settled it.
            return
        finally:
            self._over(handling)

    async def _failed(self, handling: Handling, error: BaseException) -> None:
        """Retry a message whose handling failed, or give it up."""
        message = handling.message
        if handling.case.is_settled:
            if not isinstance(error, LeaseLost):
                self._logger.warning(
                    "the handler failed after %r was settled or lost", message, exc_info=error
                )
            return
        if await handling.case.fail(error):
            self._logger.warning(
                "handling %r failed and is retried: %s: %s",
                *(message, type(error).__qualname__, text_of(error)),
            )
        else:
            self._logger.error(
                "handling %r failed; it went to the dead-letter stream", message, exc_info=error
            )

    async def _give_up(self, handling: Handling, kind: str, text: str) -> None:
        """Move a message to the dead-letter stream without handling it."""
        if await handling.case.bury(kind, text):
            self._logger.error(
                "%r went to the dead-letter stream without being handled: %s",
                *(handling.message, text),
            )
        self._over(handling)

    async def watch(self, handle: aio.Handler[StepRedisMessage] | None) -> None:
        """Give up on handlers that take too long and cannot be ended, or do not end."""
        limit = (self._options.handler_timeout_seconds or 0) + _LOOK_SECONDS
        while True:
            with self._guard:
                await self._shared.changed.wait(_LOOK_SECONDS)
                if self._is_over:
                    return
                overdue = [
                    handling
                    for handling in self.handling.values()
                    if handling.is_open and now() - handling.case.time.started_at > limit
                ]
                for handling in overdue:
                    handling.abandoned = True
                    self._over(handling)
                    self._working -= handling.by_worker
                    self._shared.counters.handlers_abandoned += 1
            for handling in overdue:
                if handling.by_worker and handle is not None:
                    self._start_worker(handle)
                await self._abandon(handling)

    async def _abandon(self, handling: Handling) -> None:
        error = HandlerTimeoutError(
            f"the handler took longer than {self._options.handler_timeout_seconds:g} s"
            " (handler_timeout_seconds)"
        )
        self._logger.error("%r: the handler cannot be ended and is left behind", handling.message)
        with suppress(LeaseLost):
            await self._failed(handling, error)
