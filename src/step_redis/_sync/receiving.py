# Generated from _async/receiving.py by build_hooks/generate_sync.py. Do not edit.
"""The part of StepRedisStream that receives."""

from collections.abc import Iterable

from step_redis.arguments import check_name, check_whole
from step_redis.commands import (
    message_ids,
    read_deliveries,
    read_entries,
    read_pending,
    xack,
    xclaim,
    xpending,
    xrange,
    xreadgroup,
)
from step_redis.deadline import Deadline
from step_redis.failures import Subject, told
from step_redis.messages import Delivery, ReceivedMessage, received_messages

from .reader import Reader
from .stream_base import StreamBase


class Receiving(StreamBase):
    """Receives messages of groups, and acknowledges them."""

    _readers: dict[tuple[str, str, str], Reader]

    def receive_message(
        self,
        stream_name: str,
        group_name: str,
        consumer_name: str,
        wait_ms: int | None = 0,
        count: int = 1,
        ttl_seconds: int | None = None,
    ) -> list[ReceivedMessage]:
        """Receive messages that no consumer of the group has received yet.

        First come messages that an interrupted earlier call for this consumer received and did
        not hand over. Concurrent calls for one consumer take turns.

        Args:
            stream_name: The stream.
            group_name: The group.
            consumer_name: The consumer; made when it first reads.
            wait_ms: How long to wait for a message, in milliseconds. 0 returns at once, None
                waits until there is one. May be longer than ``socket_timeout``.
            count: How many messages to return at most.
            ttl_seconds: Set the stream's time to live anew, before every wait and at least every
                half of it during the wait; None leaves it as it is.

        Returns:
            The messages in the order of the stream, none if none came in time. An entry that
            cannot be decoded is among them, with ``error`` set.

        Raises:
            GroupNotFoundError: There is no such stream or group.
            PoolExhaustedError: No connection for reads became free within the wait.
            StepRedisError: Anything else. What the call had received comes with the next one.
        """
        subject = Subject("receive_message", stream_name, group_name, consumer_name)
        with told(self._logger, subject):
            self._check_consumer(stream_name, group_name, consumer_name, count)
            check_whole("wait_ms", wait_ms, 0, none="to wait until there is a message")
            check_whole("ttl_seconds", ttl_seconds, 1, none="to leave the TTL as it is")
            self._check_open()
        deadline = Deadline.after(None if wait_ms is None else wait_ms / 1000)
        reader = self._reader(subject)
        return reader.receive(count, deadline, ttl_seconds)

    def receive_pending(
        self, stream_name: str, group_name: str, consumer_name: str, count: int = 1
    ) -> list[ReceivedMessage]:
        """Receive this consumer's own unacknowledged messages again, as after a restart.

        They come from the oldest on, again with each call until they are acknowledged; each time
        their delivery count rises. Entries that were deleted while they were pending are
        acknowledged and left out.

        Returns:
            The messages, none if nothing is pending.

        Raises:
            GroupNotFoundError: There is no such stream or group.
        """
        subject = Subject("receive_pending", stream_name, group_name, consumer_name)
        with told(self._logger, subject):
            self._check_consumer(stream_name, group_name, consumer_name, count)
            read = xreadgroup(
                stream_name, group_name, consumer_name, count=count, block_ms=None, start="0"
            )
            listed = xpending(stream_name, group_name, count=count, consumer=consumer_name)
            while True:
                read_reply, listed_reply = self._call(read, listed)
                entries = read_deliveries(read_reply)
                counts = {pending.id: pending.count for pending in read_pending(listed_reply)}
                self._forget_deleted(
                    stream_name, group_name, [id_ for id_, fields in entries if fields is None]
                )
                # What is not listed was acknowledged or taken over between the two commands.
                deliveries = [
                    Delivery(id_, fields, counts[id_])
                    for id_, fields in entries
                    if fields is not None and id_ in counts
                ]
                if deliveries or len(entries) < count:
                    return self._hand_over(subject, deliveries)

    def claim_messages(
        self,
        stream_name: str,
        group_name: str,
        consumer_name: str,
        min_idle_ms: int,
        count: int = 1,
    ) -> list[ReceivedMessage]:
        """Take over messages that were received and left unacknowledged, by whichever consumer.

        For programs without leases: an idle time cannot tell a dead consumer from a slow one, so
        choose it longer than the longest handling. Entries that were deleted while they were
        pending are acknowledged and left out.

        Args:
            stream_name: The stream.
            group_name: The group.
            consumer_name: The consumer that gets them.
            min_idle_ms: Take only what was delivered at least so many milliseconds ago.
            count: How many messages to take at most.

        Returns:
            The messages, oldest first, none if nothing is idle for so long. Delivering them
            counted once more.

        Raises:
            GroupNotFoundError: There is no such stream or group.
        """
        subject = Subject("claim_messages", stream_name, group_name, consumer_name)
        with told(self._logger, subject):
            self._check_consumer(stream_name, group_name, consumer_name, count)
            check_whole("min_idle_ms", min_idle_ms, 0)
            while True:
                [reply] = self._call(
                    xpending(stream_name, group_name, count=count, min_idle_ms=min_idle_ms)
                )
                idle = {pending.id: pending.count for pending in read_pending(reply)}
                if not idle:
                    return []
                [reply] = self._call(
                    xclaim(
                        *(stream_name, group_name, consumer_name), min_idle_ms=min_idle_ms, ids=idle
                    ),
                    effect="messages may have been taken over: receive_pending returns them",
                )
                deliveries = [
                    Delivery(id_, fields or [], idle[id_] + 1)
                    for id_, fields in read_entries(reply)
                ]
                if len(deliveries) < len(idle):
                    claimed = {delivery.id for delivery in deliveries}
                    missing = [id_ for id_ in idle if id_ not in claimed]
                    replies = self._call(*(xrange(stream_name, id_) for id_ in missing))
                    deleted = [id_ for id_, at in zip(missing, replies, strict=True) if not at]
                    self._forget_deleted(stream_name, group_name, deleted)
                if deliveries or len(idle) < count:
                    return self._hand_over(subject, deliveries)

    def acknowledge_message(
        self, stream_name: str, group_name: str, message_id: str | Iterable[str]
    ) -> int:
        """Acknowledge messages: the group is done with them.

        It is plain XACK: whoever knows the id can acknowledge, whichever consumer has it.

        Args:
            stream_name: The stream.
            group_name: The group.
            message_id: The ``id`` of a received message, or several of them.

        Returns:
            How many were acknowledged: 0 for one that was not pending (any more), or if there is
            no such stream or group.
        """
        subject = Subject(
            "acknowledge_message",
            stream_name,
            group_name,
            message_id=message_id if isinstance(message_id, str) else None,
        )
        with told(self._logger, subject):
            check_name("stream_name", stream_name)
            check_name("group_name", group_name)
            ids = message_ids(message_id)
            if not ids:
                return 0
            [reply] = self._call(
                xack(stream_name, group_name, ids), effect="messages may have been acknowledged"
            )
            acknowledged: int = reply
            return acknowledged

    def _check_consumer(self, stream: str, group: str, consumer: str, count: int) -> None:
        check_name("stream_name", stream)
        check_name("group_name", group)
        check_name("consumer_name", consumer)
        check_whole("count", count, 1)

    def _reader(self, subject: Subject) -> Reader:
        key = subject.consumer_path()
        reader = self._readers.get(key)
        if reader is None:
            made = Reader(self._connections, subject, self._codec, self._logger)
            reader = self._readers.setdefault(key, made)
        return reader

    def _hand_over(self, subject: Subject, deliveries: list[Delivery]) -> list[ReceivedMessage]:
        """Return messages that were read past the reader, which must not bring them again."""
        self._reader(subject).inbox.handed_elsewhere(delivery.id for delivery in deliveries)
        stream, _, _ = subject.consumer_path()
        return received_messages(stream, deliveries, self._codec)

    def _forget_deleted(self, stream: str, group: str, ids: list[str]) -> None:
        """Acknowledge entries that were deleted while they were pending."""
        if ids:
            self._call(xack(stream, group, ids), effect=None)
