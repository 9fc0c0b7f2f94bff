# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""The part of StepRedisStream that publishes."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from step_redis.arguments import check_name, check_number, check_whole
from step_redis.commands import Argument, xadd_options
from step_redis.errors import (
    ConfigurationError,
    EncodeError,
    StepRedisError,
)
from step_redis.failures import Subject, tell, told
from step_redis.publishing import (
    DUE_LIMIT,
    Chunk,
    DelayedMessages,
    Handle,
    cancel,
    check_messages,
    check_size,
    due,
    list_delayed,
    once,
    publish_due,
    read_cancelled,
    read_delayed,
    read_once,
)
from step_redis.recent import Recent

from .batches import Batches
from .outbox import Outbox
from .producer import Producer
from .stream_base import StreamBase
from .trimmer import Trimmer

DAY_SECONDS = 86400


class Publishing(StreamBase):
    """Publishes messages: now or later, one or many."""

    _outboxes: Recent[Outbox]
    _producer: Producer
    _trimmer: Trimmer

    async def publish_message(
        self,
        stream_name: str,
        message: Mapping[str, Any],
        max_len: int | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        exact_trim: bool = False,
        create: bool = True,
        dedup_id: str | None = None,
        dedup_seconds: float = DAY_SECONDS,
        delay_seconds: float | None = None,
        deliver_at: datetime | None = None,
    ) -> str:
        """Append a message to a stream, once: if the reply is lost, it is asked for again.

        Args:
            stream_name: The stream.
            message: A dict of str to str, bytes, int, float, bool, None, list or dict.
            max_len: Trim the stream to about so many of its latest entries. **It removes the oldest
                whether or not a group has read or acknowledged them**; a `Retention` does not.
                None never trims.
            headers: Metadata, str to str, beside the message.
            exact_trim: Trim to exactly ``max_len``, which costs the server more.
            create: Whether to make a stream that does not exist.
            dedup_id: Your key for the message, as in ``"order-17"``. Publishing again under the
                same key, by whichever process, writes nothing and returns what the first time
                returned, also if that entry is gone meanwhile. The message must be the same;
                headers and the time may differ, and are ignored.
            dedup_seconds: For how long the key is remembered, from the first time on, or from when
                the message is due.
            delay_seconds: Append the message so many seconds later: a consumer of the stream does
                that, or `publish_due`. Trimming by ``max_len`` is done then.
            deliver_at: Append it at that time, a datetime with a time zone, by the server's clock.

        Returns:
            The id of the entry; of a delayed message, also of one that is due at once, its handle,
            which `cancel_delayed` takes.

        Raises:
            EncodeError: The message holds something that would not come back as it is.
            StreamNotFoundError: There is no such stream and ``create`` is False.
            DuplicateConflict: Another message was published with the same ``dedup_id``.
            StepRedisError: Anything else; ``outcome_unknown`` says whether the entry may have been
                written. If scripts cannot be used, it is True when a reply was lost.
        """
        try:
            check_name("stream_name", stream_name)
            if max_len is not None:
                check_whole("max_len", max_len, 1, none="to keep all entries")
            if dedup_id is not None:
                check_name("dedup_id", dedup_id)
            if dedup_seconds != DAY_SECONDS:
                check_number("dedup_seconds", dedup_seconds, 0.001)
            due_at = due(delay_seconds, deliver_at)
            fields = self._codec.encode(message, headers)
            if dedup_id is None and not due_at:
                self._check_open()
                if self._trimmer.is_on:
                    await self._trimmer.before_publishing(stream_name, 1)
                options = xadd_options(max_len, exact=exact_trim, create=create)
                return await self._outboxes.of((stream_name, options)).publish(fields)
            check_size(fields)
            operation = once(
                stream_name,
                fields,
                xadd_options(max_len, exact=exact_trim, create=True),
                dedup_id=dedup_id,
                dedup_seconds=dedup_seconds,
                due=due_at,
                must_exist=not create,
            )
            self._check_open()
            await self._trimmer.before_publishing(stream_name, 1)
            result = await self._producer.carry_out(stream_name, operation)
            return read_once(result, stream_name, dedup_id)
        except StepRedisError as error:
            # `told` would be called for each message.
            tell(self._logger, Subject("publish_message", stream_name), error)
            raise

    async def publish_messages(
        self,
        stream_name: str,
        messages: Iterable[Mapping[str, Any]],
        max_len: int | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Append messages to a stream, in order and each once.

        They are sent in chunks of 500, or of a megabyte, while further ones are taken from
        ``messages``, so that it may be a generator of any length; it is no way to publish what
        comes now and then, since nothing is sent before a chunk is full. One connection is in use
        meanwhile; if the generator uses the pool too, there has to be another one. If the call is
        cancelled or interrupted, the first ones of the messages may have been written.

        Args:
            stream_name: The stream.
            messages: The messages, each as for `publish_message`.
            max_len: As for `publish_message`: it can remove what no group has read.
            headers: Metadata, str to str, beside each of the messages.

        Returns:
            The ids of the entries, in the order of the messages.

        Raises:
            PartlyPublishedError: It failed amid the messages; says which were written and which may
                have been.
            Exception: What ``messages`` raised, and errors as of `publish_message`, if nothing was
                written nor may have been.
        """
        with told(self._logger, Subject("publish_messages", stream_name)):
            check_name("stream_name", stream_name)
            written = await self._publish_all({stream_name: messages}, max_len, headers)
            return written[stream_name]

    async def publish_many(
        self,
        messages: Mapping[str, Iterable[Mapping[str, Any]]],
        max_len: int | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, list[str]]:
        """Append messages to several streams: for each as `publish_messages` does.

        Args:
            messages: For each stream its messages.
            max_len: As for `publish_message`, for each of the streams.
            headers: Metadata, str to str, beside each of the messages.

        Returns:
            For each stream the ids of the entries.

        Raises:
            PartlyPublishedError: As `publish_messages` does.
        """
        with told(self._logger, Subject("publish_many")):
            if not isinstance(messages, Mapping):
                raise ConfigurationError(
                    f"messages must be a dict of streams to messages; got {type(messages).__name__}"
                )
            for stream_name in messages:
                check_name("the name of a stream", stream_name)
            return await self._publish_all(messages, max_len, headers)

    async def publish_due(self, stream_name: str) -> int:
        """Append the delayed messages that are due, as running consumers of the stream do.

        For streams that no `StepRedisConsumer` reads. Any number of processes may call it.

        Returns:
            How many were appended by this call.
        """
        with told(self._logger, Subject("publish_due", stream_name)):
            check_name("stream_name", stream_name)
            self._check_open()
            count, moved = 0, DUE_LIMIT
            while moved == DUE_LIMIT:
                _, moved = await self._connections.run(
                    publish_due(stream_name),
                    effect="messages may have been appended; calling it again appends none twice",
                )
                count += moved
            return count

    async def cancel_delayed(self, handle: str) -> bool:
        """Take a delayed message back.

        Its ``dedup_id`` is free again.

        Args:
            handle: What `publish_message` returned for it.

        Returns:
            True; False if it is in the stream already or was cancelled before.
        """
        with told(self._logger, Subject("cancel_delayed")):
            delayed = Handle.parse(handle)
            self._check_open()
            return read_cancelled(await self._producer.carry_out(delayed.stream, cancel(delayed)))

    async def delayed(self, stream_name: str, limit: int = 100) -> DelayedMessages:
        """Look at the messages of a stream that are delayed.

        Args:
            stream_name: The stream.
            limit: How many messages to return at most; all are counted.

        Returns:
            How many there are, and those that are due first.
        """
        with told(self._logger, Subject("delayed", stream_name)):
            check_name("stream_name", stream_name)
            check_whole("limit", limit, 0)
            self._check_open()
            reply = await self._connections.run(list_delayed(stream_name, limit), effect=None)
            return read_delayed(reply, stream_name, self._codec)

    def _outbox(self, key: tuple[str, tuple[Argument, ...]]) -> Outbox:
        return Outbox(self._producer, *key)

    async def _publish_all(
        self,
        messages: Mapping[str, Iterable[Mapping[str, Any]]],
        max_len: int | None,
        headers: Mapping[str, str] | None,
    ) -> dict[str, list[str]]:
        check_whole("max_len", max_len, 1, none="to keep all entries")
        for several in messages.values():
            check_messages(several)
        self._check_open()
        batches = Batches(self._producer, max_len)
        try:
            for stream in messages:
                batches.begin(stream)
            for stream, several in messages.items():
                await self._publish_stream(batches, stream, several, headers)
            await batches.resolve()
        except Exception as error:
            failure = await batches.failed(error)
            if failure is None:
                raise
            raise failure from error
        else:
            return batches.written
        finally:
            await batches.end()

    async def _publish_stream(
        self,
        batches: Batches,
        stream: str,
        messages: Iterable[Mapping[str, Any]],
        headers: Mapping[str, str] | None,
    ) -> None:
        chunk = Chunk(stream)
        for number, message in enumerate(messages):
            try:
                fields = self._codec.encode(message, headers)
                check_size(fields)
            except EncodeError as error:
                raise EncodeError(
                    f"message {number} of {stream!r}, counted from 0: {error.args[0]}"
                ) from error
            chunk.add(fields)
            if chunk.is_full:
                await self._publish_chunk(batches, chunk)
                chunk = Chunk(stream)
        if chunk.messages:
            await self._publish_chunk(batches, chunk)

    async def _publish_chunk(self, batches: Batches, chunk: Chunk) -> None:
        await self._trimmer.before_publishing(chunk.stream, len(chunk.messages))
        await batches.publish(chunk)
