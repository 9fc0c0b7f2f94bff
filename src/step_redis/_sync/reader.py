# Generated from _async/reader.py by build_hooks/generate_sync.py. Do not edit.
"""Reading for one consumer, so that nothing that was delivered to it is lost on the way."""

import logging
from math import ceil
from typing import Any

from redis.exceptions import ResponseError

from step_redis._backend import threads
from step_redis.codec import Codec
from step_redis.commands import (
    Command,
    EntryId,
    Pending,
    delivered,
    entry_id,
    expire,
    ping,
    read_entries,
    read_pending,
    xack,
    xpending,
    xrange,
    xreadgroup,
)
from step_redis.deadline import Deadline, now
from step_redis.errors import (
    GroupNotFoundError,
    PoolClosedError,
    PoolExhaustedError,
    StepRedisError,
)
from step_redis.failures import Subject, is_reply, reply_failure, told
from step_redis.inbox import Inbox
from step_redis.messages import Delivery, ReceivedMessage, new_messages, received_messages
from step_redis.place import Place

from .connections import Connections

BLOCK_LIMIT_SECONDS = 2.0
"""The longest BLOCK of one read. Redis 6.2 notices a flush only when BLOCK ends, and so long at
most, a read whose connection broke can go on taking messages."""

_RECOVERY_BLOCK_SECONDS = 0.1
"""The longest BLOCK while a lost read may still take messages, which must be looked for."""

_ARRIVING_SECONDS = 0.01
"""How long a reply takes to come through, once the server is known to have sent it."""

_PAGE = 100

_EFFECT = "messages that it took come with the next receive_message"


class Reader:
    """Reads for one consumer of one group; calls take turns.

    A read is a job of its own: a caller that is interrupted leaves it running, and what it brings
    waits in the inbox for the next call.
    """

    def __init__(
        self, connections: Connections, subject: Subject, codec: Codec, logger: logging.Logger
    ) -> None:
        self._connections = connections
        self._subject = subject
        self._codec = codec
        self._logger = logger
        self._stream, self._group, self._consumer = subject.consumer_path()
        self._turn = threads.Places(1)
        self._job: threads.Job | None = None
        self._closed = False
        self.inbox = Inbox()

    def receive(
        self, count: int, deadline: Deadline, ttl_seconds: int | None
    ) -> list[ReceivedMessage]:
        """Return messages; wait until the deadline at most for at least one."""
        batch: list[ReceivedMessage] = []
        turn = Place()
        try:
            with told(self._logger, self._subject):
                try:
                    if self._turn.take(turn, deadline.left()):
                        self._fill(count, deadline, ttl_seconds)
                        batch = self.inbox.peek(count)
                        self.inbox.drop(batch)
                finally:
                    self._turn.give(turn)
            return batch  # noqa: TRY300 - nothing may come between here and the caller
        except BaseException:
            self.inbox.put_back(batch)
            raise

    def close(self) -> None:
        """End a read that is under way; a call that waits for it ends with `PoolClosedError`."""
        self._closed = True
        if self._job is not None:
            self._job.cancel()

    def _fill(self, count: int, deadline: Deadline, ttl_seconds: int | None) -> None:
        """Read until there is something in the inbox or the time is over."""
        polled = False
        while not self.inbox.ready:
            if self._closed:
                raise PoolClosedError("the stream was closed while this call was reading")
            if self._job is not None:
                if not self._take_over(self._job, deadline, ttl_seconds):
                    return
                continue
            # A read whose end was not noted, by whatever interrupt, is a lost one.
            self.inbox.read_lost()
            after = self.inbox.lost_after
            if after is not None and self._recover(after, self._within(deadline)):
                return
            self._job = threads.start(self._read, count, deadline, ttl_seconds)
            self._job.finished(None)
            job, self._job = self._job, None
            try:
                job.result()
            except PoolExhaustedError:
                if polled and deadline.passed:
                    return
                raise
            polled = True
            if deadline.passed:
                return

    def _within(self, deadline: Deadline) -> float | None:
        """Return the seconds that a command on the way may take to get a connection."""
        left = deadline.left()
        return None if left is None else left + self._connections.margin_seconds

    def _take_over(self, job: threads.Job, deadline: Deadline, ttl_seconds: int | None) -> bool:
        """Wait for a read that an interrupted call left behind; return whether to go on."""
        left = deadline.left()
        if ttl_seconds is not None:
            self._call(expire(self._stream, ttl_seconds), within=self._within(deadline))
            left = ttl_seconds / 2 if left is None else min(left, ttl_seconds / 2)
        if left == 0:
            # What was in the stream before this call was sent to that read before the answer to
            # this: then it is here, or it was nothing.
            self._connections.call(ping(), within=self._within(deadline))
            left = _ARRIVING_SECONDS
        if not job.finished(left):
            return not deadline.passed
        self._job = None
        try:
            job.result()
        except StepRedisError as error:
            # It belongs to the call that was interrupted; this one reads for itself.
            self._logger.warning("an interrupted read failed: %s", error)
        return True

    def _read(self, count: int, deadline: Deadline, ttl_seconds: int | None) -> None:
        """Read once and put what comes into the inbox."""
        left = deadline.left()
        refresh = () if ttl_seconds is None else (expire(self._stream, ttl_seconds),)
        if left == 0:
            self._exchange(*refresh, self._command(count, None), deadline=deadline)
            return
        place = Place()
        try:
            self._connections.reserve_reader(place, left)
            limits = [BLOCK_LIMIT_SECONDS]
            left = deadline.left()
            if left is not None:
                limits.append(left)
            if ttl_seconds is not None:
                limits.append(ttl_seconds / 2)
            if self.inbox.lost_after is not None:
                limits.append(_RECOVERY_BLOCK_SECONDS)
            block_ms = max(1, ceil(1000 * min(limits)))
            command = self._command(count, block_ms)
            self._exchange(*refresh, command, deadline=deadline, wait_seconds=block_ms / 1000)
        finally:
            self._connections.free_reader(place)

    def _command(self, count: int, block_ms: int | None) -> Command:
        return xreadgroup(self._stream, self._group, self._consumer, count=count, block_ms=block_ms)

    def _exchange(
        self, *commands: Command, deadline: Deadline, wait_seconds: float | None = None
    ) -> None:
        """Send a read and put its reply into the inbox."""
        within = self._within(deadline)
        self.inbox.read_sent(wait_seconds or 0)
        try:
            if wait_seconds is None:
                replies = self._connections.call(*commands, effect=_EFFECT, within=within)
            else:
                replies = self._connections.read(
                    *commands, wait_seconds=wait_seconds, effect=_EFFECT, within=within
                )
        except StepRedisError as error:
            if not error.outcome_unknown:
                self.inbox.read_refused()
            raise
        if isinstance(replies[-1], ResponseError):
            self.inbox.read_refused()
        else:
            entries = delivered(replies[-1])
            self.inbox.arrived(new_messages(self._stream, entries, self._codec))
        for reply in replies:
            self._check(reply)

    def _recover(self, after: EntryId, within: float | None) -> bool:
        """Fetch what lost reads took; return whether there was something.

        The messages are pending already: they are looked up by id, so that their delivery count
        stays what it is.
        """
        asked_at = now()
        while True:
            [reply] = self._call(
                xpending(
                    self._stream, self._group, after=after, count=_PAGE, consumer=self._consumer
                ),
                within=within,
            )
            pending = read_pending(reply)
            if unseen := self.inbox.unseen(pending):
                self._fetch(unseen)
                if self.inbox.ready:
                    return True
            if len(pending) < _PAGE:
                self.inbox.searched(asked_at, now())
                return False
            after = entry_id(pending[-1].id)

    def _call(self, *commands: Command, within: float | None = None) -> list[Any]:
        """Send commands that may be repeated; raise the first error reply."""
        replies = self._connections.call(*commands, within=within)
        for reply in replies:
            self._check(reply)
        return replies

    def _fetch(self, messages: list[Pending]) -> None:
        """Put pending messages into the inbox; those that were deleted are acknowledged."""
        replies = self._call(*(xrange(self._stream, message.id) for message in messages))
        found: list[Delivery] = []
        deleted: list[str] = []
        for message, reply in zip(messages, replies, strict=True):
            entries = read_entries(reply)
            found += [Delivery(id_, fields or [], message.count) for id_, fields in entries]
            if not entries:
                deleted.append(message.id)
        self.inbox.recovered(received_messages(self._stream, found, self._codec))
        if deleted:
            self._call(xack(self._stream, self._group, deleted))

    def _check(self, reply: object) -> None:
        """Raise what an error reply stands for."""
        # UNBLOCKED says that the stream vanished or its server was demoted: the next read tells.
        if not isinstance(reply, ResponseError) or is_reply(reply, "UNBLOCKED"):
            return
        failure = reply_failure(reply, self._connections.target)
        if isinstance(failure, GroupNotFoundError):
            self.inbox.group_is_gone()
        raise failure
