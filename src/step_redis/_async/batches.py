# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""Many messages published in order: a chunk of them a call, two calls on their way."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import attrs
from redis.exceptions import ResponseError

from step_redis.commands import Argument, xadd_options
from step_redis.errors import (
    ConfigurationError,
    PartlyPublishedError,
    StepRedisError,
)
from step_redis.failures import reply_failure
from step_redis.ledger import Lane, Numbered
from step_redis.publishing import Chunk, batch, read_ids

from .conversation import Conversation
from .producer import Producer

_IN_FLIGHT = 2
"""How many calls are on their way at once: so many results a ledger remembers."""

_UNREAD_SECONDS = 1.0
"""For how long a reply is left unread: the connection may break when the messages pause."""


@attrs.define(eq=False)
class _Sent:
    chunk: Chunk
    numbered: Numbered
    reply: Any = None
    """What the server answered, once it has."""

    @property
    def is_done(self) -> bool:
        """Whether it took effect, for all that is known."""
        return isinstance(self.reply, list) and self.reply[0] == b"DONE"


class Batches:
    """Publishes the messages of one call.

    A lane's operations take effect in the order of their numbers or not at all, so that of a
    stream's messages always the first ones are written.
    """

    def __init__(self, producer: Producer, max_len: int | None) -> None:
        self._producer = producer
        self._max_len = max_len
        self._conversation = Conversation(producer.connections)
        self._sent: deque[_Sent] = deque()
        self._lanes: dict[str, Lane] = {}
        self.written: dict[str, list[str]] = {}
        self.unknown: dict[str, int] = {}
        self._has_failed = False
        self._refused: set[str] = set()
        """Streams of which a chunk was refused, and with it all that was sent after it."""

    def begin(self, stream: str) -> None:
        """Take note that messages of a stream follow, if it has any."""
        self.written[stream], self.unknown[stream] = [], 0

    async def publish(self, chunk: Chunk) -> None:
        """Send a chunk; wait until there is room for it on the way.

        Raises:
            StepRedisError: It, or one that was sent before, could not be written.
        """
        try:
            if self._producer.is_plain(chunk.stream):
                await self._resolve()
                await self._publish_plainly(chunk)
                return
            while self._sent and self._must_wait():
                await self._resolve_first()
            try:
                lane = self._lane(chunk.stream)
            except ConfigurationError as error:
                await self._resolve()
                await self._fall_back(chunk, error)
                return
            await self._send(_Sent(chunk, Numbered(batch(chunk.messages, self._options()), lane)))
        except StepRedisError:
            self._has_failed = True
            raise

    async def resolve(self) -> None:
        """Wait until it is known what came of everything that was sent.

        Raises:
            StepRedisError: Something could not be written.
        """
        try:
            await self._resolve()
        except StepRedisError:
            self._has_failed = True
            raise
        while self._lanes:
            _, lane = self._lanes.popitem()
            self._producer.lanes.give(lane)

    async def end(self) -> None:
        """Let the connection go; what is not resolved stays unknown, and its lane is given up."""
        await self._conversation.end()

    async def failed(self, cause: BaseException) -> StepRedisError | None:
        """Find out what was written before a failure; None if nothing was, nor may have been."""
        if not self._has_failed:
            # The messages themselves failed; should these fail as well, it is counted below.
            with suppress(StepRedisError):
                await self.resolve()
        self._has_failed = True
        if self._conversation.is_open:
            await self._receive_all()
        while self._sent:
            sent = self._sent.popleft()
            if sent.is_done:
                self._note(sent)
            elif sent.numbered.lost is not None and sent.chunk.stream not in self._refused:
                self._may_be_written(sent.chunk)
        known, unknown = sum(map(len, self.written.values())), sum(self.unknown.values())
        if not known and not unknown:
            return None
        # What another error says may be about the message.
        why = str(cause) if isinstance(cause, StepRedisError) else type(cause).__name__
        more = f", and {unknown} more may have been" if unknown else " before it failed"
        failure = PartlyPublishedError(
            f"{known} messages were written{more}: {why}", outcome_unknown=bool(unknown)
        )
        failure.written, failure.unknown = self.written, self.unknown
        return failure

    def _options(self) -> Sequence[Argument]:
        return xadd_options(self._max_len, exact=False, create=True)

    def _lane(self, stream: str) -> Lane:
        """Return the lane that keeps a stream's messages in order."""
        for sent in reversed(self._sent):
            if sent.chunk.stream == stream:
                return sent.numbered.lane
        lane = self._lanes.get(stream)
        if lane is None or lane.is_stale:
            lane = self._lanes[stream] = self._producer.lanes.take(stream)
        return lane

    async def _send(self, sent: _Sent) -> None:
        numbered = sent.numbered
        self._sent.append(sent)
        try:
            await self._conversation.send(numbered.call().by_sha(), numbered.operation.effect)
        except StepRedisError as error:
            if not error.outcome_unknown:
                self._sent.pop()
                raise
            self._lose(error)
            await self._resolve_all()

    def _must_wait(self) -> bool:
        """Whether there is no room on the way, or a reply has been there for long by now."""
        is_old = self._sent[0].numbered.age_seconds > _UNREAD_SECONDS
        return len(self._sent) == _IN_FLIGHT or is_old

    async def _resolve(self) -> None:
        while self._sent:
            await self._resolve_first()
        # Whoever waits for a connection, this one's own plain commands too, may need it.
        await self._conversation.end()

    async def _resolve_first(self) -> None:
        sent = self._sent[0]
        try:
            sent.reply = await self._conversation.receive(sent.numbered.operation.effect)
        except StepRedisError as error:
            self._lose(error)
        if sent.is_done:
            self._sent.popleft()
            self._done(sent)
        else:
            # A script that the server does not have, a ledger that is gone, an error, a loss.
            await self._receive_all()
            await self._resolve_all()

    async def _receive_all(self) -> None:
        """Read all replies that are to come, and let the connection go: others may need it."""
        try:
            for sent in self._sent:
                if sent.reply is None and sent.numbered.lost is None:
                    sent.reply = await self._conversation.receive(sent.numbered.operation.effect)
        except StepRedisError as error:
            self._lose(error)
        await self._conversation.end()

    def _lose(self, error: StepRedisError) -> None:
        """The connection broke: what is not answered may have been carried out."""
        for sent in self._sent:
            if sent.reply is None:
                sent.numbered.lost = error

    async def _resolve_all(self) -> None:
        """Carry everything out, one after the other, that is not known to be."""
        while self._sent:
            sent = self._sent.popleft()
            if not sent.is_done:
                await self._carry_out(sent)
            if sent.is_done:
                self._done(sent)

    async def _carry_out(self, sent: _Sent) -> None:
        try:
            result = await self._producer.resolve(sent.numbered)
        except StepRedisError as error:
            if self._producer.may_fall_back(error):
                await self._fall_back(sent.chunk, error)
                return
            if error.outcome_unknown:
                self._may_be_written(sent.chunk)
            else:
                self._refused.add(sent.chunk.stream)
            raise
        sent.reply = [b"DONE", result]

    def _done(self, sent: _Sent) -> None:
        self._lanes[sent.chunk.stream] = sent.numbered.lane
        refusal = self._note(sent)
        if refusal is not None:
            raise reply_failure(refusal, self._producer.connections.target)

    def _note(self, sent: _Sent) -> ResponseError | None:
        ids, refusal = read_ids(sent.reply[1])
        self.written[sent.chunk.stream] += ids
        return refusal

    def _may_be_written(self, chunk: Chunk) -> None:
        self.unknown[chunk.stream] += len(chunk.messages)

    async def _fall_back(self, chunk: Chunk, error: StepRedisError) -> None:
        await self._publish_plainly(chunk)
        self._producer.fell_back(chunk.stream, error)

    async def _publish_plainly(self, chunk: Chunk) -> None:
        """Write a chunk without a script; a lost reply stays lost."""
        written = self.written[chunk.stream]
        try:
            replies = await self._producer.add_plainly(
                chunk.stream, chunk.messages, self._options()
            )
        except StepRedisError as error:
            if error.outcome_unknown:
                self._may_be_written(chunk)
            raise
        for at, reply in enumerate(replies):
            if isinstance(reply, ResponseError):
                # Some of those behind it may have been taken again.
                taken = [n for n, one in enumerate(replies) if not isinstance(one, ResponseError)]
                self.unknown[chunk.stream] += max([*taken, at - 1]) - at + 1
                raise reply_failure(reply, self._producer.connections.target)
            written.append(reply.decode())
