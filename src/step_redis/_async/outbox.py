# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""Messages that are published at the same time, sent together."""

from collections import deque
from collections.abc import Sequence
from copy import copy
from weakref import WeakSet

import attrs

from step_redis._backend import aio
from step_redis.commands import Argument
from step_redis.errors import StepRedisError
from step_redis.failures import reply_failure
from step_redis.ledger import Numbered
from step_redis.publishing import CHUNK_BYTES, CHUNK_MESSAGES, batch, read_ids

from .producer import Producer

_AT_ONCE = 2
"""How many batches are on their way at once: the server works on one while another is made."""

_IN_A_ROW = 8
"""How many batches one caller sends before another has to: each change costs threads time."""


@attrs.define(eq=False)
class _Slot:
    """One of the batches that may be on their way.

    It counts as long as somebody holds it: interrupted between any two steps, nobody does.
    """

    messages: int = 0


@attrs.define(eq=False)
class _Waiting:
    """A message whose caller waits for what becomes of it."""

    fields: list[bytes]
    ticket: aio.Ticket = attrs.field(factory=aio.Ticket)
    slot: _Slot | None = None
    """What its caller is to send the next batch with."""
    written: str = ""
    failure: StepRedisError | None = None
    is_gone: bool = False
    """Whether its caller was interrupted."""

    @property
    def is_over(self) -> bool:
        """Whether it is known what became of it."""
        return bool(self.written) or self.failure is not None

    def failed(self, error: StepRedisError) -> None:
        """Let its caller raise an error, which is its own, since it adds to it."""
        self.failure = copy(error)
        self.failure.__cause__ = error.__cause__
        self.ticket.wake()


@attrs.frozen(eq=False)
class _Batch:
    """Messages that are sent together."""

    messages: list[_Waiting]
    numbered: Numbered


class Outbox:
    """What is appended to one stream with the same options, by all callers of a stream object.

    A message goes out at once if nothing is on its way. While something is, others gather, and one
    of their callers sends them as one batch, which takes effect once. So nothing is in memory but
    what callers wait for.
    """

    def __init__(self, producer: Producer, stream: str, options: Sequence[Argument]) -> None:
        self._producer = producer
        self._stream = stream
        self._options = options
        self._guard = aio.Guard()
        self._slots: WeakSet[_Slot] = WeakSet()
        self._waiting: deque[_Waiting] = deque()
        self._left: deque[_Batch] = deque()
        """Batches that were sent by somebody who was interrupted."""

    async def publish(self, fields: list[bytes]) -> str:
        """Append a message; return its id.

        Raises:
            StepRedisError: It was refused, or nobody knows whether it was written.
        """
        with self._guard:
            alone = None if self._slots else _Slot(1)
            if alone is not None:
                self._slots.add(alone)
        if alone is None:
            return await self._publish_together(_Waiting(fields))
        # In the caller's own time: if that is cut short, nobody else is concerned.
        try:
            numbered = self._producer.number(self._stream, batch([fields], self._options))
            result = await self._producer.finish(numbered, lambda: self._make_way(alone))
        finally:
            self._make_way(alone)
        [written], _ = read_ids(result)
        return written

    async def _publish_together(self, waiting: _Waiting) -> str:
        try:
            with self._guard:
                self._waiting.append(waiting)
                self._appoint()
            while not waiting.is_over:
                if waiting.slot is not None:
                    # Those who are about to publish come along.
                    await aio.give_way()
                    slot, waiting.slot = waiting.slot, None
                    job = aio.start(self._send, slot)
                    await job.finished(None)
                    job.result()
                    continue
                await waiting.ticket.wait()
                if not waiting.is_over:
                    with self._guard:
                        self._appoint()
        except BaseException:
            self._leave(waiting)
            raise
        if waiting.failure is not None:
            raise waiting.failure
        return waiting.written

    async def _send(self, slot: _Slot) -> None:
        """Send batches of those that wait; it is a job, since whoever sends may be cancelled."""
        try:
            for _ in range(_IN_A_ROW):
                with self._guard:
                    sent = self._left.popleft() if self._left else self._next(slot)
                if sent is None or not await self._carry_out(sent, slot):
                    return
        finally:
            self._make_way(slot)

    def _next(self, slot: _Slot) -> _Batch | None:
        """Take messages that wait: half of all there are, so that two batches are alike."""
        if not self._waiting:
            return None
        on_their_way = sum(one.messages for one in self._slots)
        most = min(CHUNK_MESSAGES, (len(self._waiting) + on_their_way + 1) // _AT_ONCE)
        taken: list[_Waiting] = []
        size = 0
        while self._waiting and len(taken) < most:
            size += sum(map(len, self._waiting[0].fields))
            if taken and size > CHUNK_BYTES:
                break
            taken.append(self._waiting.popleft())
        slot.messages = len(taken)
        operation = batch([waiting.fields for waiting in taken], self._options)
        return _Batch(taken, self._producer.number(self._stream, operation))

    async def _carry_out(self, sent: _Batch, slot: _Slot) -> bool:
        """Send a batch until it is known what came of it; return whether that was soon."""
        try:
            result = await self._producer.finish(sent.numbered, lambda: self._make_way(slot))
        except StepRedisError as error:
            for waiting in sent.messages:
                waiting.failed(error)
            return False
        except BaseException:
            # What came of it is asked for by somebody else.
            sent.numbered.interrupted()
            with self._guard:
                self._left.append(sent)
            raise
        ids, refusal = read_ids(result)
        for waiting, written in zip(sent.messages, ids, strict=False):
            waiting.written = written
            waiting.ticket.wake()
        if refusal is not None:
            refused, *others = sent.messages[len(ids) :]
            refused.failed(reply_failure(refusal, self._producer.connections.target))
            # They were not tried.
            with self._guard:
                self._waiting.extendleft(reversed(others))
        return slot in self._slots

    def _make_way(self, slot: _Slot) -> None:
        """Let others go: a batch has arrived, or its reply was lost, which may take long."""
        with self._guard:
            self._slots.discard(slot)
            if self._waiting or self._left:
                self._appoint()

    def _appoint(self) -> None:
        """Let some who wait send the next batches; the guard is held."""
        for waiting in self._waiting or [one for left in self._left for one in left.messages]:
            if len(self._slots) >= _AT_ONCE:
                return
            if waiting.slot is None and not waiting.is_gone:
                waiting.slot = _Slot()
                self._slots.add(waiting.slot)
                waiting.ticket.wake()

    def _leave(self, waiting: _Waiting) -> None:
        """A caller was interrupted; if its message was not sent yet, it never is."""
        with self._guard:
            waiting.is_gone = True
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            for left in list(self._left):
                if all(one.is_gone for one in left.messages):
                    self._left.remove(left)
            if waiting.slot is not None:
                self._slots.discard(waiting.slot)
                waiting.slot = None
            self._appoint()
