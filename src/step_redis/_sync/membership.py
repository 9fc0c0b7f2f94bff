# Generated from _async/membership.py by build_hooks/generate_sync.py. Do not edit.
"""One consumer's part in one group: its lease kept, messages brought in, settlements made."""

import logging
from collections import deque
from collections.abc import Iterable
from typing import Any

import attrs
from redis.exceptions import ResponseError

from step_redis import script_calls
from step_redis._backend import threads
from step_redis.backoff import delays
from step_redis.codec import Codec
from step_redis.commands import entry_id, new_deliveries, xreadgroup
from step_redis.deadline import Deadline, lease_now, now
from step_redis.errors import (
    GroupNotFoundError,
    LeaseLost,
    NotAStreamError,
    StepRedisError,
)
from step_redis.failures import is_reply, reply_failure
from step_redis.health import Counters
from step_redis.keys import GroupKeys
from step_redis.lease import Attempt, Held, Member, Outcome
from step_redis.outage import Outage, passes_by_itself
from step_redis.place import Place
from step_redis.policy import ConsumerOptions
from step_redis.settlement import Settlement

from .connections import Connections

POLL_SECONDS = 0.5
"""How often the lease is renewed and due messages are looked for: what is handed back is taken by
another consumer within a second."""

BLOCK_SECONDS = 1.0
"""The longest BLOCK of one read: so long may stopping wait for it."""

DORMANT_SECONDS = 1.0
"""How often redriven messages are looked for."""

STARVED_SECONDS = 1.0
"""By how much the heartbeat may be late before that is logged."""


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
    counters: Counters = attrs.field(factory=Counters)
    last_read: float | None = None
    last_settled: float | None = None


class Membership:
    """The part of a consumer in one group of one stream.

    Two jobs of its own keep it going, `keep` and `read`; workers `take` what is ready and `settle`.
    All state is guarded by ``shared.guard``; methods that need it held say so.

    Args:
        shared: What it shares with the consumer's other memberships.
        stream: The stream whose entries it delivers.
        group: The group that it is a member of.
        base: What its names on the server begin with.
        share: How many messages may be ready at most.
        origin: The stream and the group whose dead letters it delivers again; None if its messages
            are those of the stream itself.
    """

    def __init__(
        self,
        shared: Shared,
        stream: str,
        group: str,
        base: str,
        share: int,
        origin: tuple[str, str] | None = None,
    ) -> None:
        self.shared = shared
        self.stream, self.group = stream, group
        self.origin_stream, self.origin_group = origin or (stream, group)
        self.redrives = origin is not None
        self.keys = GroupKeys.of(stream, group)
        self.member = Member(base, shared.options.lease_seconds)
        self.ready: deque[Held] = deque()
        self._ready_bytes = 0
        self._share = share
        self._mean_bytes = 1
        self._more_due = False
        self._was_member = False
        self._open = False
        self._leaving = False
        self._changed = threads.Signal(shared.guard)
        self._alarm = threads.Signal(shared.guard)
        self._outage = Outage(
            f"the consumer of {stream!r} in group {group!r}",
            shared.options.outage_limit_seconds,
            shared.logger,
        )
        lease_ms = int(1000 * shared.options.lease_seconds)
        foreign = shared.options.foreign_idle_seconds
        self._lease_ms = lease_ms
        self._foreign_ms = -1 if foreign is None else int(1000 * foreign)
        self._beat_seconds = min(POLL_SECONDS, shared.options.lease_seconds / 4)
        # A beat whose answer is overdue must leave time for another one before the lease ends.
        self._answer_seconds = min(
            shared.connections.target.socket_seconds, shared.options.lease_seconds / 3
        )

    # What workers do.

    def take(self, at: float) -> Held | None:
        """Return a message whose handling may begin, if there is one; the guard is held."""
        if self.ready and not self.member.is_alive(at):
            self._lose("it could not be renewed in time")
        if not self.ready:
            return None
        held = self.ready.popleft()
        self._ready_bytes -= held.delivery.size
        held.started_at = at
        if self._is_half_empty():
            self._changed.wake()
            if self._more_due:
                self._alarm.wake()
        return held

    def settle(self, settlement: Settlement) -> None:
        """Carry out a settlement, once, over as many lost replies and outages as it takes.

        A caller that is interrupted leaves it to be carried out all the same.

        Raises:
            LeaseLost: A message was settled before or is not this consumer's any more.
            StepRedisError: It cannot be carried out; the messages are held as before.
        """
        with self.shared.guard:
            if any(held.outcome is not None or held.settling for held in settlement.held):
                raise LeaseLost(_why_lost(settlement))
            for held in settlement.held:
                held.settling = True
        job = threads.start(self._carry_out, settlement)
        job.finished(None)
        job.result()
        if settlement.outcome is not Outcome.SETTLED:
            raise LeaseLost(
                _why_lost(settlement), outcome_unknown=settlement.outcome is Outcome.UNKNOWN
            )

    def _carry_out(self, settlement: Settlement) -> None:
        pauses = delays()
        try:
            while settlement.open:
                name = self._name_for(settlement)
                if name is not None and not self._try(settlement, name):
                    threads.sleep(next(pauses))
        finally:
            with self.shared.guard:
                for held in settlement.held:
                    held.settling = False

    def _name_for(self, settlement: Settlement) -> str | None:
        """Wait for a name under which messages are held that are not settled yet."""
        with self.shared.guard:
            while (name := self.member.name) is None and settlement.open:
                self._changed.wait(None)
            if name is not None and not self.member.accepts(name, lease_now()):
                self._lose("it could not be renewed in time")
                return None
            for held in settlement.open:
                held.attempt = settlement.attempt
            return name

    def _try(self, settlement: Settlement, name: str) -> bool:
        """Send a settlement; return False if it has to be sent again in a while."""
        tried = settlement.open
        ids = [held.delivery.id for held in tried]
        try:
            reply = self.shared.connections.run(
                settlement.call(name, ids), effect="the message may have been settled"
            )
            if reply[0] == b"TYPE":
                raise NotAStreamError("the key to write to holds something else than a stream")
        except StepRedisError as error:
            with self.shared.guard:
                if error.outcome_unknown:
                    self._broke(name)
                else:
                    _withdraw(tried)
            if not passes_by_itself(error):
                raise
            return False
        with self.shared.guard:
            if reply[0] != b"OK":
                _withdraw(tried)
                if self.member.name == name:
                    self._lose("the server knows of none")
                return True
            not_owned = settlement.not_owned(ids, reply)
            for held in tried:
                if held.delivery.id in not_owned:
                    self.member.was_taken(held)
                else:
                    self.member.settled(held)
            self.shared.last_settled = now()
            if settlement.attempt is Attempt.PARK and self._open:
                # It may be due before the next beat.
                self._alarm.wake()
        return True

    # The job that keeps the lease.

    def keep(self) -> None:
        """Keep the lease and bring what is due, until it is to leave."""
        while not self._leaving:
            began = lease_now()
            try:
                seconds = self._beat(began)
            except StepRedisError as error:
                seconds = self._outage.failed(error, now())
            else:
                self._outage.over(now())
            due = lease_now() + seconds
            with self.shared.guard:
                if seconds > 0 and not self._leaving:
                    self._alarm.wait(seconds)
            self._look_at_delay(lease_now() - due)

    def _look_at_delay(self, seconds: float) -> None:
        if seconds > STARVED_SECONDS:
            self.shared.logger.warning(
                "the heartbeat of %s in group %r came %.1f s late: something kept this process from"
                " running, such as a handler that computes or blocks the event loop. Move such work"
                " to a thread or a process; a lease that is not renewed within %g s is lost",
                *(self.member.base, self.group, seconds, self.shared.options.lease_seconds),
            )

    def _beat(self, began: float) -> float:
        """Do what is due for the lease; return the seconds until the next beat."""
        with self.shared.guard:
            if self.member.has_expired(began):
                self._lose("it could not be renewed in time")
            name = self.member.name
        return self._join() if name is None else self._poll(name)

    def _join(self) -> float:
        with self.shared.guard:
            fresh, old_names = self.member.fresh_name(), list(self.member.old_names)
        sent_at = lease_now()
        try:
            code, *rows = self._run(
                script_calls.join(self.keys, self.group, fresh, self._lease_ms, old_names)
            )
        except StepRedisError as error:
            if error.outcome_unknown:
                with self.shared.guard:
                    self.member.join_was_lost(fresh)
            raise
        if code == b"GONE":
            return self._ensure()
        with self.shared.guard:
            if code != b"OK":
                self._lose("it ended before a reply that was lost could be made up for")
                return 0
            self.shared.counters.moves += bool(old_names)
            new = self.member.joined(fresh, sent_at, lease_now(), script_calls.read_messages(rows))
            self._was_member = True
            self.ready = deque(held for held in self.ready if held.outcome is None)
            self._count_ready()
            self._arrived(new)
            self._changed.wake()
        if old_names:
            self.shared.logger.info(
                "%s in group %r goes on as %s after a lost reply",
                *(self.member.base, self.group, fresh),
            )
        return 0

    def _ensure(self) -> float:
        """Make the group where the policy says that it goes on."""
        with self.shared.guard:
            self._lose("its group is gone")
        if self.redrives or self._leaving:
            # A group for redriving is made by whoever redrives.
            return DORMANT_SECONDS
        policy = self.shared.options.on_group_lost
        reply = self._run(script_calls.ensure(self.keys, self.group, policy))
        if reply[0] == b"MISSING":
            failure = GroupNotFoundError(
                "there is no such stream or no such group on it, and on_group_lost='fail':"
                " create_input_stream makes both"
            )
            failure.stream, failure.group = self.stream, self.group
            raise failure
        if reply[0] == b"MADE":
            if self._was_member:
                self.shared.counters.groups_lost += 1
            level = logging.WARNING if self._was_member else logging.INFO
            self.shared.logger.log(
                level,
                "group %r of stream %r was not there; made it, reading after id %s"
                " (on_group_lost=%r)",
                *(self.group, self.stream, reply[1].decode(), policy),
            )
        return 0

    def _poll(self, name: str) -> float:
        with self.shared.guard:
            room = self._room() if self._open else 0
        sent_at = lease_now()
        try:
            reply = self._run(
                script_calls.poll(
                    *(self.keys, self.group, name, self._lease_ms),
                    count=room,
                    foreign_ms=-1 if self.redrives else self._foreign_ms,
                    checkpoint=not self.redrives,
                )
            )
        except StepRedisError as error:
            if error.outcome_unknown:
                with self.shared.guard:
                    self._broke(name)
            raise
        if reply[0] != b"OK":
            with self.shared.guard:
                if self.member.name == name:
                    self._lose("the server knows of none")
            return 0
        polled = script_calls.read_polled(reply)
        with self.shared.guard:
            self.member.renewed(name, sent_at)
            new = self.member.took(name, polled.deliveries, lease_now())
            if new is None:
                self._dropped()
                return 0
            self._arrived(new)
            self.shared.counters.taken_over += polled.parked
            self.shared.counters.consumers_removed += polled.removed
            self._more_due = polled.next_due_ms == 0
        if polled.parked:
            self.shared.logger.warning(
                "group %r of stream %r: took over %d messages of dead consumers",
                *(self.group, self.stream, polled.parked),
            )
        if polled.next_due_ms > 0:
            return min(self._beat_seconds, polled.next_due_ms / 1000)
        return self._beat_seconds

    def _run(self, call: script_calls.ScriptCall, within: float | None = None) -> list[Any]:
        return self.shared.connections.run(
            call,
            effect="its outcome is found out next",
            within=within,
            seconds=self._answer_seconds,
        )

    # The job that reads.

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
            if not self._open:
                self.hand_back()

    def _next_read(self) -> tuple[str, int] | None:
        """Wait until there is room; return the name to read under and how many to read."""
        with self.shared.guard:
            while not self._leaving:
                name, room = self.member.name, self._room()
                if self._open and name is not None and room > 0 and self._is_half_empty():
                    return name, room
                self._changed.wait(None)
        return None

    def _read_once(self, name: str, count: int) -> None:
        place = Place()
        try:
            self.shared.connections.reserve_reader(place, None)
            with self.shared.guard:
                if not self._open or self.member.name != name:
                    return
            [reply] = self.shared.connections.read(
                xreadgroup(
                    *(self.stream, self.group, name),
                    count=count,
                    block_ms=int(1000 * BLOCK_SECONDS),
                ),
                wait_seconds=BLOCK_SECONDS,
                effect="messages that it took are found next",
                within=None,
            )
        except StepRedisError as error:
            if error.outcome_unknown:
                with self.shared.guard:
                    self._broke(name)
            raise
        finally:
            self.shared.connections.free_reader(place)
        if is_reply(reply, "UNBLOCKED"):
            # The stream vanished or its server was demoted: the next beat tells.
            with self.shared.guard:
                self._alarm.wake()
            return
        if isinstance(reply, ResponseError):
            failure = reply_failure(reply, self.shared.connections.target)
            if not isinstance(failure, GroupNotFoundError):
                raise failure
            with self.shared.guard:
                if self.member.name == name:
                    self._lose("its group is gone")
            return
        with self.shared.guard:
            new = self.member.read(name, new_deliveries(reply), lease_now())
            if new is None:
                self._dropped()
            else:
                self._arrived(new)

    # Starting and stopping; the guard is held where nothing is awaited.

    def open(self) -> None:
        """Bring messages."""
        self._open = True
        self._changed.wake()
        self._alarm.wake()

    def close(self) -> None:
        """Bring no more messages; the lease is kept. What is ready is to be handed back."""
        self._open = False
        self._changed.wake()

    def end(self) -> None:
        """Let `keep` and `read` end."""
        self._leaving = True
        self._changed.wake()
        self._alarm.wake()

    def hand_back(self) -> None:
        """Give what is ready back to the group, which delivers it at once, as if it never had."""
        with self.shared.guard:
            held = list(self.ready)
            self.ready.clear()
            self._count_ready()
        if held:
            try:
                self.settle(
                    Settlement(
                        held,
                        Attempt.PARK,
                        lambda name, ids: script_calls.park(
                            self.keys, self.group, name, ids, delay_ms=0, kind="unstarted"
                        ),
                    )
                )
            except LeaseLost:
                # Then the group gets it back without us.
                return
            self.shared.counters.handed_back += len(held)

    def leave(self, deadline: Deadline) -> None:
        """Hand back all that is held and leave the group, after `keep` and `read` have ended.

        Raises:
            StepRedisError: It cannot be done in time: the lease will end by itself.
        """
        pauses = delays()
        try:
            while True:
                with self.shared.guard:
                    if self.member.has_expired(lease_now()):
                        self._lose("it could not be renewed in time")
                    name, must_move = self.member.name, bool(self.member.old_names)
                    started = [id_ for id_, held in self.member.held.items() if held.started_at]
                if name is None and not must_move:
                    return
                try:
                    if name is None:
                        self._join()
                        continue
                    # Nothing is accepted from now on, so that this one may be repeated.
                    reply = self._run(
                        script_calls.leave(self.keys, self.group, name, started),
                        within=deadline.left(),
                    )
                except StepRedisError as error:
                    if deadline.passed or not passes_by_itself(error):
                        raise
                    threads.sleep(next(pauses))
                    continue
                if reply[0] != b"MORE":
                    return
        finally:
            with self.shared.guard:
                self.member.lose()
                self._changed.wake()

    # State; the guard is held.

    def _room(self) -> int:
        """Return how many messages to bring."""
        left = self.shared.options.prefetch_bytes - self._ready_bytes
        if left <= 0:
            return 0
        return max(0, min(self._share - len(self.ready), max(1, left // self._mean_bytes)))

    def _is_half_empty(self) -> bool:
        """Whether it is worth a trip to bring more."""
        return len(self.ready) <= self._share // 2

    def _arrived(self, new: list[Held]) -> None:
        """Make messages ready, in the order of the stream."""
        if not new:
            return
        counters = self.shared.counters
        counters.received += len(new)
        counters.redelivered += sum(held.delivery.count > 1 for held in new)
        self.shared.last_read = now()
        in_order = not self.ready or _order(self.ready[-1]) < _order(new[0])
        self.ready.extend(new)
        if not in_order:
            self.ready = deque(sorted(self.ready, key=_order))
        size = sum(held.delivery.size for held in new)
        self._ready_bytes += size
        self._mean_bytes = max(1, size // len(new))
        self.shared.arrivals.wake()

    def _count_ready(self) -> None:
        self._ready_bytes = sum(held.delivery.size for held in self.ready)

    def _broke(self, name: str) -> None:
        """A reply was lost under that name: `keep` moves to a fresh one."""
        self.member.broke(name)
        self._alarm.wake()

    def _lose(self, why: str) -> None:
        """The lease is lost, if there was one: drop what is held, let `keep` join anew."""
        had_one = self.member.name is not None or bool(self.member.old_names)
        count = len(self.member.held)
        self.member.lose()
        if had_one:
            self._tell_lost(why, count)

    def _dropped(self) -> None:
        """The membership found out that the group is another one."""
        self._tell_lost("the group was made anew", len(self.ready))

    def _tell_lost(self, why: str, count: int) -> None:
        self.ready.clear()
        self._ready_bytes = 0
        self.shared.counters.leases_lost += 1
        self.shared.logger.warning(
            "%s lost its lease in group %r of stream %r: %s. The %d messages that it held are"
            " delivered again; it joins anew",
            *(self.member.base, self.group, self.stream, why, count),
        )
        self._changed.wake()
        self._alarm.wake()


def _order(held: Held) -> tuple[int, int]:
    return entry_id(held.delivery.id)


def _withdraw(tried: Iterable[Held]) -> None:
    """An attempt certainly did not take effect."""
    for held in tried:
        held.attempt = None


def _why_lost(settlement: Settlement) -> str:
    if any(held.settling or held.outcome is Outcome.SETTLED for held in settlement.held):
        return "the message was settled already"
    if settlement.outcome is Outcome.UNKNOWN:
        return "the lease ended while a reply was lost: the message may have been settled, or not"
    return "the message is not this consumer's any more; it is delivered again"
