# Generated from _async/stream.py by build_hooks/generate_sync.py. Do not edit.
"""StepRedisStream: publish to streams, receive from consumer groups, acknowledge."""

import logging
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from redis.exceptions import ResponseError

from step_redis import keys
from step_redis._backend import threads
from step_redis.arguments import check_name, check_whole
from step_redis.codec import Codec
from step_redis.commands import (
    Command,
    expire,
    message_ids,
    ping,
    read_deliveries,
    read_entries,
    read_pending,
    xack,
    xadd,
    xclaim,
    xgroup_create,
    xpending,
    xrange,
    xreadgroup,
)
from step_redis.deadline import Deadline
from step_redis.errors import PoolClosedError, StreamNotFoundError
from step_redis.failures import Subject, is_reply, reply_failure, told
from step_redis.messages import Delivery, ReceivedMessage, received_messages

from .dead_letters import DeadLetters
from .pool import StepRedisPool, connections_of
from .reader import Reader

_logger = logging.getLogger("step_redis")


class StepRedisStream:
    """Streams and consumer groups of one server.

    Used as a context manager, it ends reads that are under way when it is left; the pool stays
    open. One object serves any number of streams, groups and concurrent callers. A consumer's
    name belongs to one object at a time: what an interrupted call received is kept here for it.

    Args:
        pool: A `StepRedisPool`, or a redis-py connection pool of the same flavour.
        logger: Where to log; None is the logger ``step_redis``. Each failure is logged once, with
            stream, group, consumer and id, never with a message's data.
        default: Called with a value that cannot be stored; returns one that can, or raises.
        foreign: How entries written by other programs read: ``"str"``, with bytes where a name or
            a value is not UTF-8, or ``"bytes"`` for all names and values of entries without
            ``_step:t`` (a message of `publish_message` whose values are all ``str`` is such an
            entry too).

    Raises:
        ConfigurationError: ``pool`` is none, or of the other flavour.
    """

    def __init__(
        self,
        pool: StepRedisPool | threads.RedisPool,
        logger: logging.Logger | None = None,
        *,
        default: Callable[[Any], Any] | None = None,
        foreign: Literal["str", "bytes"] = "str",
    ) -> None:
        self._logger = logger or _logger
        self._codec = Codec(default=default, foreign=foreign)
        self._connections = connections_of(pool)
        self._owns_readers = not isinstance(pool, StepRedisPool)
        self._closed = False
        self._readers: dict[tuple[str, str, str], Reader] = {}

    def __repr__(self) -> str:
        return f"StepRedisStream({self._connections.target.name})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End reads that are under way; later calls raise `PoolClosedError`.

        A call that waits for messages ends with that error too: at once if it can be cancelled,
        within 2 seconds if it blocks. What was received and not handed over stays pending.
        """
        self._closed = True
        for reader in list(self._readers.values()):
            reader.close()
        if self._owns_readers:
            self._connections.aclose_readers()

    def create_input_stream(
        self,
        stream_name: str,
        group_name: str,
        ttl_seconds: int | None = None,
        *,
        start_id: str = "0",
    ) -> bool:
        """Create a consumer group, and its stream if there is none.

        Args:
            stream_name: The stream.
            group_name: The group.
            ttl_seconds: Time to live of the stream from now on; None leaves it as it is.
            start_id: The group reads what comes after this id. ``"0"``: all that is in the
                stream, so that nothing published earlier is missed; ``"$"``: only what comes
                later.

        Returns:
            True if it created the group, False if it was there. Its position is left as it is
            then; the TTL is set in any case.

        Raises:
            NotAStreamError: The key holds something else.
        """
        with told(self._logger, Subject("create_input_stream", stream_name, group_name)):
            check_name("stream_name", stream_name)
            check_name("group_name", group_name)
            check_name("start_id", start_id)
            check_whole("ttl_seconds", ttl_seconds, 1, none="to leave the TTL as it is")
            create = xgroup_create(stream_name, group_name, start_id)
            if ttl_seconds is None:
                [reply] = self._call(
                    create, effect="the group may exist", allowed="BUSYGROUP"
                )
            else:
                reply, _ = self._call(
                    create,
                    expire(stream_name, ttl_seconds),
                    effect="the group may exist and the TTL may be set",
                    allowed="BUSYGROUP",
                )
            return not isinstance(reply, ResponseError)

    def publish_message(
        self,
        stream_name: str,
        message: Mapping[str, Any],
        max_len: int | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        exact_trim: bool = False,
        create: bool = True,
    ) -> str:
        """Append a message to a stream.

        Args:
            stream_name: The stream.
            message: A dict of str to str, bytes, int, float, bool, None, list or dict.
            max_len: Trim the stream to about so many of its latest entries. It removes the oldest
                whether or not a group has read or acknowledged them. None never trims.
            headers: Metadata, str to str, beside the message.
            exact_trim: Trim to exactly ``max_len``, which costs the server more.
            create: Whether to make a stream that does not exist.

        Returns:
            The id of the entry.

        Raises:
            EncodeError: The message holds something that would not come back as it is.
            StreamNotFoundError: There is no such stream and ``create`` is False.
            StepRedisError: Anything else; ``outcome_unknown`` says whether the entry may have been
                written. It is never sent a second time.
        """
        with told(self._logger, Subject("publish_message", stream_name)):
            check_name("stream_name", stream_name)
            check_whole("max_len", max_len, 1, none="to keep all entries")
            fields = self._codec.encode(message, headers)
            [reply] = self._call(
                xadd(stream_name, fields, max_len=max_len, exact=exact_trim, create=create),
                effect="the entry may have been written",
            )
            if reply is None:
                raise StreamNotFoundError(
                    "there is no such stream: create_input_stream makes one, create=True too"
                )
            written: str = reply.decode()
            return written

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

    def redrive(
        self,
        stream_name: str,
        group_name: str,
        *,
        ids: Iterable[str] | None = None,
        limit: int | None = None,
        dry_run: bool = False,
        dead_letter_stream: str | None = None,
    ) -> list[str]:
        """Deliver dead letters again, to the group they came from and to no other.

        Each is delivered once, by a `StepRedisConsumer` of the group, as if it had never failed.
        It leaves the dead-letter stream when it is settled; if it fails again as often as the retry
        policy allows, it returns to it. One that is on its way already is left alone.

        Args:
            stream_name: The stream that the messages were published to.
            group_name: The group that gave them up.
            ids: Which ones, by their ids in the dead-letter stream; None takes all.
            limit: How many at most, from the oldest on; None for no limit.
            dry_run: Only tell which ones it would be.
            dead_letter_stream: Where they are; None is ``{orders}.dead`` for ``orders``.

        Returns:
            Their ids in the dead-letter stream.

        Raises:
            ConfigurationError: One of ``ids`` is no dead letter of this stream and group, which
                those are not any more that were redriven and settled; nothing was done then.
        """
        with told(self._logger, Subject("redrive", stream_name, group_name)):
            check_name("stream_name", stream_name)
            check_name("group_name", group_name)
            check_whole("limit", limit, 1, none="for no limit")
            self._check_open()
            dead = keys.dead_letter_stream(stream_name)
            if dead_letter_stream is not None:
                check_name("dead_letter_stream", dead_letter_stream)
                dead = dead_letter_stream
            letters = DeadLetters(self._connections, dead, stream_name, group_name)
            wanted = None if ids is None else message_ids(ids, "ids")
            return letters.redrive(wanted, limit, dry_run=dry_run)

    def ping(self) -> bool:
        """Return True if the server answers; raises otherwise."""
        with told(self._logger, Subject("ping")):
            self._call(ping())
            return True

    def set_ttl(self, key: str, ttl_seconds: int) -> bool:
        """Let a key, such as a stream, expire in so many seconds.

        Returns:
            True, or False if there is no such key.
        """
        with told(self._logger, Subject("set_ttl", key)):
            check_name("key", key)
            check_whole("ttl_seconds", ttl_seconds, 1)
            [reply] = self._call(expire(key, ttl_seconds), effect="the TTL may have been set")
            return bool(reply)

    def _call(
        self, *commands: Command, effect: str | None = None, allowed: str = ""
    ) -> list[Any]:
        """Send commands; raise the first error reply but those of the allowed code."""
        self._check_open()
        replies = self._connections.call(*commands, effect=effect)
        for reply in replies:
            if isinstance(reply, ResponseError) and not is_reply(reply, allowed):
                raise reply_failure(reply, self._connections.target)
        return replies

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosedError("the stream is closed")

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
