# Generated from _async/crew.py by build_hooks/generate_sync.py. Do not edit.
"""The workers of a consumer: each handles one message at a time, until it is settled."""

from collections.abc import Sequence
from contextlib import suppress

from step_redis._backend import threads
from step_redis.arguments import HandlerKindError
from step_redis.dead_letters import text_of
from step_redis.deadline import Deadline, lease_now
from step_redis.errors import ConfigurationError, HandlerTimeoutError, LeaseLost
from step_redis.place import Place

from .branch import Branch
from .case import Case
from .membership import Shared
from .message import StepRedisMessage
from .taking import Taking

_CANCEL_SECONDS = 1.0
"""How long handlers that are ended may take for it."""

_LOOK_SECONDS = 0.5
"""How often handlers that take too long are looked for."""

TURN_SECONDS = 0.0005
"""How long handlers that never wait may keep what else is to be done from going on."""


class Crew:
    """Has messages handled."""

    def __init__(
        self, shared: Shared, name: str, branches: Sequence[Branch], taking: Taking
    ) -> None:
        self._shared, self._guard = shared, shared.guard
        self._options = shared.options
        self._logger = shared.logger
        self._name = name
        self._branches = branches
        self._taking = taking
        self._workers: list[threads.Worker] = []
        self._working: set[Place] = set()
        """Those of whom each has its place; who is left behind has none any more."""
        self._is_over = False
        self.hurry = False
        """Whether handlers are not waited for."""

    def start(self, handle: threads.Handler[StepRedisMessage]) -> None:
        """Start as many workers as messages may be handled at once."""
        for _ in range(self._options.concurrency):
            self._start_worker(handle)

    def end(self, grace_seconds: float) -> None:
        """Wait for handlers that are under way, so long; then end those that can be ended."""
        ends = Deadline.after(grace_seconds)
        if not self._workers_ended(grace_seconds):
            can_end = self.cancel()
            hurried, self.hurry = self.hurry, False
            if not self._workers_ended(_CANCEL_SECONDS if can_end else 0):
                self._logger.warning(
                    "%d handlers of %s did not end in time; their messages are handed back, and"
                    " delivered again",
                    *(len(self._working), self._name),
                )
            self.hurry = self.hurry or hurried
        self._acknowledged(ends)
        with self._guard:
            for branch in self._branches:
                branch.handling.clear()

    def _acknowledged(self, ends: Deadline) -> None:
        """Wait until what was handled is acknowledged: until then, or at least a moment."""
        least = Deadline.after(_CANCEL_SECONDS)
        with self._guard:
            while not all(branch.gathering.is_idle for branch in self._branches):
                deadline = least if self.hurry or ends.passed else ends
                if deadline.passed:
                    return
                self._shared.changed.wait(deadline.left())

    def cancel(self) -> bool:
        """Ask handlers to end at once; return whether that can help."""
        can_end = [worker.cancel() for worker in self._workers]
        return any(can_end)

    def _workers_ended(self, seconds: float) -> bool:
        deadline = Deadline.after(seconds)
        with self._guard:
            while self._working and not self.hurry and not deadline.passed:
                self._shared.changed.wait(deadline.left())
            self._is_over = True
            return not self._working

    def _start_worker(self, handle: threads.Handler[StepRedisMessage]) -> None:
        place = Place()
        with self._guard:
            self._working.add(place)
        name = f"step_redis worker of {self._name}"
        self._workers.append(threads.start_worker(name, self._work, handle, place))

    def _work(self, handle: threads.Handler[StepRedisMessage], place: Place) -> None:
        try:
            self._handle_all(handle, place)
        except BaseException as error:  # noqa: BLE001 - run raises it
            if not threads.is_being_cancelled():
                self._shared.fail(error)
        finally:
            with self._guard:
                self._working.discard(place)
                self._shared.changed.wake()
                for branch in self._branches:
                    branch.gathering.tell()

    def _handle_all(  # noqa: C901, PLR0912 - in one, since each call costs each message
        self, handle: threads.Handler[StepRedisMessage], place: Place
    ) -> None:
        """Handle one message after the other."""
        guard, shared, taking = self._guard, self._shared, self._taking
        gathering = self._branches[0].gathering
        case: Case | None = None
        while True:
            is_enough = False
            is_turn_over = taking.looked_at - shared.turn_at > TURN_SECONDS
            with guard:
                if case is not None:
                    gathering = case.branch.gathering
                    is_enough = taking.handled(case)
                    case = None
                if not is_enough and not is_turn_over:
                    case = taking.take(place)
                    if case is not None and gathering.is_untold:
                        gathering.tell()
            if is_enough:
                gathering.send()
                shared.turn_at = 0.0
                continue
            if is_turn_over:
                before = shared.turn_at
                threads.give_way()
                if shared.turn_at == before:
                    # The first one who goes on begins a turn for all.
                    shared.turn_at = lease_now()
                continue
            if case is None or case.is_odd:
                case = taking.next(case, worker=place)
                if case is None:
                    return
            message = StepRedisMessage(case)
            if case.may_be_unreadable and message.error is not None:
                with suppress(LeaseLost):
                    taking.give_up(case, "DecodeError", message.error)
                case = None
                continue
            handled: Case | None = case
            try:
                if case.time is None:
                    threads.checked(handle(message))
                else:
                    case.time.handle(handle, message)
            except BaseException as error:  # noqa: BLE001 - it raises what is to end the worker
                self._raised(case, error)
                handled = None
            if case.abandoned:
                return
            case = handled

    def _raised(self, case: Case, error: BaseException) -> None:
        """Do what is to be done when a handler failed; raise what is to end the worker."""
        try:
            if isinstance(error, HandlerKindError):
                raise ConfigurationError(str(error)) from None
            if isinstance(error, KeyboardInterrupt | SystemExit) or threads.is_being_cancelled():
                raise error
            self._failed(case, error)
        except LeaseLost:
            # It was logged; the group delivers the message again, or somebody settled it.
            return
        finally:
            self._taking.over(case)

    def _failed(self, case: Case, error: BaseException) -> None:
        """Retry a message whose handling failed, or give it up."""
        message = StepRedisMessage(case)
        if case.is_settled:
            if not isinstance(error, LeaseLost):
                self._logger.warning(
                    "the handler failed after %r was settled or lost", message, exc_info=error
                )
            return
        if case.fail(error):
            self._logger.warning(
                "handling %r failed and is retried: %s: %s",
                *(message, type(error).__qualname__, text_of(error)),
            )
        else:
            self._logger.error(
                "handling %r failed; it went to the dead-letter stream", message, exc_info=error
            )

    def watch(self, handle: threads.Handler[StepRedisMessage] | None) -> None:
        """Give up on handlers that take too long and cannot be ended, or do not end."""
        limit = (self._options.handler_timeout_seconds or 0) + _LOOK_SECONDS
        while True:
            with self._guard:
                self._shared.changed.wait(_LOOK_SECONDS)
                if self._is_over:
                    return
                overdue = [
                    case
                    for case in self._taking.handling()
                    if case.is_open and case.seconds > limit
                ]
                for case in overdue:
                    case.abandoned = True
                    self._taking.over(case)
                    if case.worker is not None:
                        self._working.discard(case.worker)
                    self._shared.counters.handlers_abandoned += 1
            for case in overdue:
                if case.worker is not None and handle is not None:
                    self._start_worker(handle)
                self._abandon(case)

    def _abandon(self, case: Case) -> None:
        error = HandlerTimeoutError(
            f"the handler took longer than {self._options.handler_timeout_seconds:g} s"
            " (handler_timeout_seconds)"
        )
        message = StepRedisMessage(case)
        self._logger.error("%r: the handler cannot be ended and is left behind", message)
        with suppress(LeaseLost):
            self._failed(case, error)
