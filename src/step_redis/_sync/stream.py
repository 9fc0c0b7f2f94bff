# Generated from _async/stream.py by build_hooks/generate_sync.py. Do not edit.
"""StepRedisStream: publish to streams, receive from consumer groups, acknowledge."""

import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Literal, Self

from redis.exceptions import ResponseError

from step_redis import keys
from step_redis._backend import threads
from step_redis.arguments import check_name, check_number, check_type, check_whole, shown
from step_redis.codec import Codec
from step_redis.commands import expire, message_ids, ping, xgroup_create
from step_redis.errors import ConfigurationError, GroupInUseError
from step_redis.failures import Subject, told
from step_redis.ledger import LEDGER_SECONDS
from step_redis.recent import Recent
from step_redis.retention import Retention, Trimmed, forget_group

from .dead_letters import DeadLetters
from .pool import StepRedisPool
from .producer import Producer
from .publishing import Publishing
from .receiving import Receiving
from .trimmer import Trimmer

_OUTBOX_SECONDS = 10
"""For how long an outbox is kept that nobody uses; two of one stream do no harm."""


class StepRedisStream(Publishing, Receiving):
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
        retry_seconds: For how long publishing is repeated after its reply was lost, and then once
            more at most; it is written once all the same. 0 publishes by plain XADD, which is never
            repeated.
        retention: What the streams that this object publishes to are trimmed to, a little with
            every hundred messages; None trims nothing.

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
        retry_seconds: float = 30,
        retention: Retention | None = None,
    ) -> None:
        super().__init__(pool, logger, Codec(default=default, foreign=foreign))
        check_number("retry_seconds", retry_seconds, 0)
        if retry_seconds > LEDGER_SECONDS / 3:
            raise ConfigurationError(
                f"retry_seconds must be {LEDGER_SECONDS // 3} at most, since the server remembers"
                f" for {LEDGER_SECONDS} s what was published; got {shown(retry_seconds)}"
            )
        if retention is not None:
            check_type("retention", retention, Retention)
        self._owns_readers = not isinstance(pool, StepRedisPool)
        self._readers = {}
        self._producer = Producer(self._connections, self._logger, retry_seconds)
        self._outboxes = Recent(self._outbox, _OUTBOX_SECONDS)
        self._trimmer = Trimmer(self._connections, self._logger, retention)

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

    def trim(self, stream_name: str, retention: Retention) -> Trimmed:
        """Remove the entries beyond the limits that every group has acknowledged.

        It never removes an entry that some group of the stream has not acknowledged. Entries that
        are being published or acknowledged meanwhile may stay until the next time.

        Args:
            stream_name: The stream.
            retention: The limits.

        Returns:
            How many entries were removed, and what held others back: nothing, if there is no such
            stream.
        """
        with told(self._logger, Subject("trim", stream_name)):
            check_name("stream_name", stream_name)
            check_type("retention", retention, Retention)
            self._check_open()
            return self._trimmer.trim(stream_name, retention)

    def forget_group(
        self, stream_name: str, group_name: str, *, dead_letter_stream: str | None = None
    ) -> bool:
        """Remove a group for good, so that it holds nothing back any more.

        What it has not received or not acknowledged is never delivered to it. What was redriven to
        it stays in the dead-letter stream.

        Args:
            stream_name: The stream.
            group_name: The group.
            dead_letter_stream: Where its dead letters are; None is ``{orders}.dead`` for
                ``orders``.

        Returns:
            True, or False if there was no such group.

        Raises:
            GroupInUseError: A `StepRedisConsumer` is at work in it, which would make it again: stop
                it first. Of other consumers the server does not know that they are.
        """
        with told(self._logger, Subject("forget_group", stream_name, group_name)):
            check_name("stream_name", stream_name)
            check_name("group_name", group_name)
            if dead_letter_stream is not None:
                check_name("dead_letter_stream", dead_letter_stream)
            self._check_open()
            code, *found = self._connections.run(
                forget_group(stream_name, group_name, dead_letter_stream),
                effect="the group may be gone",
            )
            if code == b"ALIVE":
                names = ", ".join(name.decode() for name in found)
                raise GroupInUseError(
                    f"consumers of the group are at work, stop them first: {names}"
                )
            return bool(found[0])

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
