# Generated from _async/membership.py by build_hooks/generate_sync.py. Do not edit.
"""One consumer's part in one group: what it holds, and what the jobs around it share."""

import logging
from collections import deque
from itertools import chain

import attrs

from step_redis._backend import threads
from step_redis.codec import Codec
from step_redis.commands import entry_id
from step_redis.deadline import lease_now, now
from step_redis.health import Counters
from step_redis.keys import GroupKeys
from step_redis.lease import Held, Member
from step_redis.policy import ConsumerOptions
from step_redis.prefetch import Prefetch

from .connections import Connections


@attrs.define(eq=False)
class Shared:
    """What the memberships of one consumer share."""

    connections: Connections
    options: ConsumerOptions
    codec: Codec
    logger: logging.Logger
    guard: threads.Guard
    arrivals: threads.Signal
    """Messages arrived, or it is time to stop."""
    changed: threads.Signal
    """Something about the consumer as a whole changed."""
    stopping: bool = False
    """Whether nothing more is to be handled."""
    failure: BaseException | None = None
    """What ended the consumer, if it did not end by itself."""
    counters: Counters = attrs.field(factory=Counters)
    last_read: float | None = None
    last_settled: float | None = None
    turn_at: float = 0.0
    """When those who handle messages last let others go on; 0 to let them go on at once."""
    _untold: deque[tuple[str, tuple[object, ...]]] = attrs.field(factory=deque)

    def tell_later(self, text: str, *about: object) -> None:
        """Log a warning soon. Logging may take long, so the guard is never held meanwhile."""
        self._untold.append((text, about))

    def tell(self) -> None:
        """Log what is to be told; the guard is not held."""
        while True:
            try:
                text, about = self._untold.popleft()
            except IndexError:
                return
            self.logger.warning(text, *about)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be handled, for whatever reason."""
        return self.stopping or self.failure is not None

    def fail(self, error: BaseException) -> None:
        """End the consumer because of an error; the first one counts."""
        with self.guard:
            self.failure = self.failure or error
            self.changed.wake()
            self.arrivals.wake()


class Membership:
    """The part of a consumer in one group of one stream.

    A `Keeper` keeps its lease and brings what is due, an `Intake` reads what is new, workers `take`
    what is ready, a `Settler` settles it. All state is guarded by ``shared.guard``; whoever calls a
    method holds the guard.

    Args:
        shared: What it shares with the consumer's other memberships.
        stream: The stream whose entries it delivers.
        group: The group that it is a member of.
        base: What its names on the server begin with.
        prefetch: How many messages may be ready.
        origin: The stream and the group whose dead letters it delivers again; None if its messages
            are those of the stream itself.
    """

    def __init__(
        self,
        shared: Shared,
        stream: str,
        group: str,
        base: str,
        prefetch: Prefetch,
        origin: tuple[str, str] | None = None,
    ) -> None:
        self.shared = shared
        self.stream, self.group = stream, group
        self.origin_stream, self.origin_group = origin or (stream, group)
        self.redrives = origin is not None
        self.keys = GroupKeys.of(stream, group)
        self.member = Member(base, shared.options.lease_seconds)
        self.ready: deque[Held] = deque()
        self.is_open = False
        """Whether messages are to be brought."""
        self.is_ending = False
        """Whether its jobs are to end."""
        self.rung = False
        """Whether the next beat is to come at once."""
        self.more_due = False
        """Whether parked messages are due that there was no room for."""
        self.changed = threads.Signal(shared.guard)
        """There is a name, or room, or an outcome."""
        self.alarm = threads.Signal(shared.guard)
        """For the keeper: do not wait for the next beat."""
        self.gathered = threads.Signal(shared.guard)
        """Something waits to be acknowledged."""
        self.settled = threads.Signal(shared.guard)
        """Acknowledgements came to an end, or nobody is sending them."""
        self.asked = False
        """Whether the reader was asked to bring more, since it last looked."""
        self._prefetch = prefetch
        self._mean_bytes = 1.0
        """Of a message that is ready, about."""

    def take(self, at: float) -> Held | None:
        """Return a message whose handling may begin, if there is one; the guard is held."""
        ready = self.ready
        if ready and not self.member.is_alive(at):
            self.lose("it could not be renewed in time")
        if not ready:
            return None
        held = ready.popleft()
        held.started_at = at
        if not self.asked and len(ready) <= self._prefetch.limit // 2:
            self.asked = True
            self.shared.turn_at = 0.0
            # The others of its read waited about as long.
            self._prefetch.taken(at - held.came_at)
            self.changed.wake()
            if self.more_due:
                self.ring()
        return held

    def open(self) -> None:
        """Bring messages."""
        self.changed.attach()
        self.is_open = True
        self.changed.wake()
        self.ring()

    def close(self) -> None:
        """Bring no more messages; the lease is kept. What is ready is to be handed back."""
        self.is_open = False
        self.changed.wake()

    def close_from_anywhere(self) -> None:
        """Do as `close` does, without the guard."""
        self.is_open = False
        self.changed.wake_from_anywhere()

    def end(self) -> None:
        """Let `keep` and `read` end."""
        self.is_ending = True
        self.changed.wake()
        self.gathered.wake()
        self.ring()

    def let_go(self) -> None:
        """Hold nothing any more, so that nobody waits for a settlement; the guard is held."""
        self.member.lose()
        self.ready.clear()
        self.changed.wake()

    def room(self) -> int:
        """Return how many messages to bring."""
        left = self.shared.options.prefetch_bytes - self._mean_bytes * len(self.ready)
        if left <= 0:
            return 0
        most = max(1, int(left / self._mean_bytes))
        return max(0, min(self._prefetch.limit - len(self.ready), most))

    def is_half_empty(self) -> bool:
        """Whether it is worth a trip to bring more."""
        return len(self.ready) <= self._prefetch.limit // 2

    def arrived(self, new: list[Held]) -> None:
        """Make messages ready, in the order of the stream."""
        if not new:
            return
        redelivered = 0
        self.shared.last_read = now()
        self._prefetch.came()
        at = lease_now()
        for held in new:
            held.came_at = at
            if held.count > 1:
                redelivered += 1
        self.shared.counters.received += len(new)
        self.shared.counters.redelivered += redelivered
        in_order = not self.ready or _order(self.ready[-1]) < _order(new[0])
        self.ready.extend(new)
        if not in_order:
            self.ready = deque(sorted(self.ready, key=_order))
        self._weigh(new)
        self.shared.arrivals.wake_one()
        if not self.is_open:
            # It came too late: it is handed back.
            self.changed.wake()

    def _weigh(self, new: list[Held]) -> None:
        size = sum(map(len, chain.from_iterable([held.fields for held in new])))
        before = len(self.ready) - len(new)
        self._mean_bytes = max(1.0, (self._mean_bytes * before + size) / len(self.ready))

    def moved(self, new: list[Held]) -> None:
        """It goes on under a fresh name, and these came with it."""
        self.ready = deque(held for held in self.ready if held.outcome is None)
        self.arrived(new)
        self.changed.wake()

    def take_all(self) -> list[Held]:
        """Return all that is ready, which is not any more."""
        held = list(self.ready)
        self.ready.clear()
        return held

    def ring(self) -> None:
        """Let the next beat come at once."""
        self.rung = True
        self.alarm.wake()

    def broke(self, name: str) -> None:
        """A reply was lost under that name: `keep` moves to a fresh one."""
        self.member.broke(name)
        self.ring()

    def lose(self, why: str) -> None:
        """The lease is lost, if there was one: drop what is held, let `keep` join anew."""
        had_one = self.member.name is not None or bool(self.member.old_names)
        count = len(self.member.held)
        self.member.lose()
        if had_one:
            self._tell_lost(why, count)

    def was_lost(self) -> None:
        """What arrived told that the lease is lost."""
        self._tell_lost("it was not renewed in time, or the group was made anew", len(self.ready))

    def _tell_lost(self, why: str, count: int) -> None:
        self.ready.clear()
        self.shared.counters.leases_lost += 1
        self.shared.tell_later(
            "%s lost its lease in group %r of stream %r: %s. The %d messages that it held are"
            " delivered again; it joins anew",
            *(self.member.base, self.group, self.stream, why, count),
        )
        self.changed.wake()
        self.ring()


def _order(held: Held) -> tuple[int, int]:
    return entry_id(held.id)
