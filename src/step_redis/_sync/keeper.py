# Generated from _async/keeper.py by build_hooks/generate_sync.py. Do not edit.
"""The job that keeps a membership's lease, brings what is due, and leaves the group in the end."""

import logging
from typing import Any

from step_redis import script_calls
from step_redis._backend import threads
from step_redis.backoff import delays
from step_redis.deadline import Deadline, lease_now, now
from step_redis.errors import GroupNotFoundError, StepRedisError
from step_redis.outage import Outage, passes_by_itself
from step_redis.publishing import DUE_LIMIT, publish_due

from .membership import Membership

POLL_SECONDS = 0.5
"""How often the lease is renewed and due messages are looked for: what is handed back is taken by
another consumer within a second."""

UNUSABLE_SECONDS = 5.0
"""How often it is tried again to redrive from a key that cannot be used."""

DORMANT_SECONDS = 1.0
"""How often redriven messages are looked for."""

STARVED_SECONDS = 1.0
"""By how much the heartbeat may be late before that is logged."""


SOON_SECONDS = 0.05
"""How soon a poll follows another for what is due next: one takes all that became due since."""

TAKE_LIMIT = 500
"""How many due messages are taken at once: Lua's stack takes some thousand."""


class Keeper:
    """Joins the group, renews the lease, polls; joins anew when the lease or a reply was lost."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        shared, options = membership.shared, membership.shared.options
        self._was_member = False
        self._told = False
        self._told_of_delayed = False
        self._outage = Outage(
            f"the consumer of {membership.stream!r} in group {membership.group!r}",
            options.outage_limit_seconds,
            shared.logger,
            # Those who redrive and those who read wait for one server; one of them tells.
            logging.DEBUG if membership.redrives else logging.WARNING,
        )
        foreign = options.foreign_idle_seconds
        self._lease_ms = int(1000 * options.lease_seconds)
        self._foreign_ms = -1 if foreign is None else int(1000 * foreign)
        self._beat_seconds = min(POLL_SECONDS, options.lease_seconds / 4)
        # A beat whose answer is overdue must leave time for another one before the lease ends.
        self._answer_seconds = min(
            shared.connections.target.socket_seconds, options.lease_seconds / 3
        )

    def keep(self) -> None:
        """Keep the lease and bring what is due, until it is to leave."""
        try:
            self._keep()
        except BaseException:
            # Without a keeper nothing can be settled any more.
            with self._membership.shared.guard:
                self._membership.let_go()
            raise

    def _keep(self) -> None:
        while not self._membership.is_ending:
            began = lease_now()
            try:
                seconds = self._beat(began)
            except StepRedisError as error:
                seconds = self._failed(error)
                self._membership.rung = False
            else:
                self._outage.over(now())
            due = lease_now() + seconds
            with self._membership.shared.guard:
                if seconds > 0 and not self._membership.rung and not self._membership.is_ending:
                    self._membership.alarm.wait(seconds)
                self._membership.rung = False
            self._membership.shared.tell()
            self._look_at_delay(lease_now() - due)

    def _failed(self, error: StepRedisError) -> float:
        """Return in how many seconds to try again; raise what does not pass by itself."""
        if not self._membership.redrives or passes_by_itself(error):
            return self._outage.failed(error, now())
        # What comes from the stream itself goes on without what is redriven.
        if not self._told:
            self._told = True
            self._membership.shared.logger.error(
                "dead letters of %r are not delivered again while this lasts: %s",
                *(self._membership.stream, error),
            )
        return UNUSABLE_SECONDS

    def _look_at_delay(self, seconds: float) -> None:
        if seconds > STARVED_SECONDS:
            self._membership.shared.logger.warning(
                "the heartbeat of %s in group %r came %.1f s late: something kept this process from"
                " running, such as a handler that computes or blocks the event loop. Move such work"
                " to a thread or a process; a lease that is not renewed within %g s is lost",
                *(
                    self._membership.member.base,
                    self._membership.group,
                    seconds,
                    self._membership.shared.options.lease_seconds,
                ),
            )

    def _beat(self, began: float) -> float:
        """Do what is due for the lease; return the seconds until the next beat."""
        with self._membership.shared.guard:
            if self._membership.member.has_expired(began):
                self._membership.lose("it could not be renewed in time")
            name = self._membership.member.name
        return self._join() if name is None else self._poll(name)

    def _join(self) -> float:
        with self._membership.shared.guard:
            fresh, old_names = (
                self._membership.member.fresh_name(),
                list(self._membership.member.old_names),
            )
        sent_at = lease_now()
        try:
            code, *rows = self._run(
                script_calls.join(
                    self._membership.keys, self._membership.group, fresh, self._lease_ms, old_names
                )
            )
        except StepRedisError as error:
            if error.outcome_unknown:
                with self._membership.shared.guard:
                    self._membership.member.join_was_lost(fresh)
            raise
        if code == b"GONE":
            return self._ensure()
        with self._membership.shared.guard:
            if code != b"OK":
                self._membership.lose("it ended before a reply that was lost could be made up for")
                return 0
            self._membership.shared.counters.moves += bool(old_names)
            new = self._membership.member.joined(
                fresh, sent_at, lease_now(), script_calls.read_messages(rows)
            )
            self._was_member = True
            self._membership.moved(new)
        if old_names:
            self._membership.shared.logger.info(
                "%s in group %r goes on as %s after a lost reply",
                *(self._membership.member.base, self._membership.group, fresh),
            )
        return 0

    def _ensure(self) -> float:
        """Make the group where the policy says that it goes on."""
        with self._membership.shared.guard:
            self._membership.lose("its group is gone")
        if self._membership.redrives or self._membership.is_ending:
            # A group for redriving is made by whoever redrives.
            return DORMANT_SECONDS
        policy = self._membership.shared.options.on_group_lost
        reply = self._run(
            script_calls.ensure(self._membership.keys, self._membership.group, policy)
        )
        if reply[0] == b"MISSING":
            failure = GroupNotFoundError(
                "there is no such stream or no such group on it, and on_group_lost='fail':"
                " create_input_stream makes both"
            )
            failure.stream, failure.group = self._membership.stream, self._membership.group
            raise failure
        if reply[0] == b"MADE":
            if self._was_member:
                self._membership.shared.counters.groups_lost += 1
            level = logging.WARNING if self._was_member else logging.INFO
            self._membership.shared.logger.log(
                level,
                "group %r of stream %r was not there; made it, reading after id %s"
                " (on_group_lost=%r)",
                *(self._membership.group, self._membership.stream, reply[1].decode(), policy),
            )
        return 0

    def _poll(self, name: str) -> float:
        with self._membership.shared.guard:
            room = self._membership.room() if self._membership.is_open else 0
            room = min(room, TAKE_LIMIT)
        sent_at = lease_now()
        try:
            reply = self._run(
                script_calls.poll(
                    *(self._membership.keys, self._membership.group, name, self._lease_ms),
                    count=room,
                    foreign_ms=-1 if self._membership.redrives else self._foreign_ms,
                    redrives=self._membership.redrives,
                )
            )
        except StepRedisError as error:
            if error.outcome_unknown:
                with self._membership.shared.guard:
                    self._membership.broke(name)
            raise
        if reply[0] != b"OK":
            with self._membership.shared.guard:
                if self._membership.member.name == name:
                    self._membership.lose("the server knows of none")
            return 0
        polled = script_calls.read_polled(reply)
        with self._membership.shared.guard:
            new = self._membership.member.took(name, polled.deliveries, lease_now())
            self._membership.member.renewed(name, sent_at)
            if new is None:
                self._membership.was_lost()
                return 0
            self._membership.arrived(new)
            if self._membership.member.is_stranded(polled.lowest, lease_now()):
                self._membership.broke(name)
            self._membership.shared.counters.taken_over += polled.parked
            self._membership.shared.counters.consumers_removed += polled.removed
            self._membership.more_due = polled.next_due_ms == 0
        if polled.delayed_due:
            self._publish_due()
        if polled.parked:
            self._membership.shared.logger.warning(
                "group %r of stream %r: took over %d messages of dead consumers",
                *(self._membership.group, self._membership.stream, polled.parked),
            )
        if polled.next_due_ms > 0:
            return min(self._beat_seconds, max(SOON_SECONDS, polled.next_due_ms / 1000))
        return self._beat_seconds

    def _publish_due(self) -> None:
        """Append delayed messages that are due; whoever does it first has done it for all."""
        try:
            # What it does it does once, however often it is repeated.
            _, moved = self._run(publish_due(self._membership.stream))
        except StepRedisError as error:
            # A lease must not end because of it.
            if not self._told_of_delayed:
                self._told_of_delayed = True
                self._membership.shared.logger.error(  # noqa: TRY400 - its text says it all
                    "delayed messages of %r are not published while this lasts: %s",
                    *(self._membership.stream, error),
                )
            return
        self._told_of_delayed = False
        self._membership.rung = self._membership.rung or moved == DUE_LIMIT

    def _run(self, call: script_calls.ScriptCall, within: float | None = None) -> list[Any]:
        return self._membership.shared.connections.run(
            call,
            effect="its outcome is found out next",
            # Nor may waiting for a connection take longer.
            within=self._answer_seconds if within is None else within,
            seconds=self._answer_seconds,
            apart=True,
        )

    def leave(self, deadline: Deadline) -> None:
        """Hand back all that is held and leave the group, after `keep` and `read` have ended.

        Raises:
            StepRedisError: It cannot be done in time: the lease will end by itself.
        """
        pauses = delays()
        try:
            while True:
                with self._membership.shared.guard:
                    if self._membership.member.has_expired(lease_now()):
                        self._membership.lose("it could not be renewed in time")
                    name, must_move = (
                        self._membership.member.name,
                        bool(self._membership.member.old_names),
                    )
                    started = [
                        id_ for id_, held in self._membership.member.held.items() if held.started_at
                    ]
                if name is None and not must_move:
                    return
                try:
                    if name is None:
                        self._join()
                        continue
                    # Nothing is accepted from now on, so that this one may be repeated.
                    reply = self._run(
                        script_calls.leave(
                            self._membership.keys, self._membership.group, name, started
                        ),
                        within=deadline.left(),
                    )
                except StepRedisError as error:
                    if deadline.passed or not passes_by_itself(error):
                        raise
                    threads.sleep(next(pauses))
                    continue
                if reply[0] != b"MORE":
                    with self._membership.shared.guard:
                        held = len(self._membership.member.held)
                        self._membership.shared.counters.add("handed_back", held)
                    return
        finally:
            with self._membership.shared.guard:
                self._membership.let_go()
