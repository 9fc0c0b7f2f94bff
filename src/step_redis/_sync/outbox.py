# Generated from _async/outbox.py by build_hooks/generate_sync.py. Do not edit.
"""Messages that are published at the same time, sent together."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from itertools import chain, islice
from weakref import WeakSet, ref

import attrs
from redis.exceptions import ResponseError

from step_redis._backend import threads
from step_redis.commands import Argument
from step_redis.errors import StepRedisError
from step_redis.failures import reply_failure
from step_redis.ledger import Numbered
from step_redis.place import nobody
from step_redis.publishing import CHUNK_BYTES, CHUNK_MESSAGES, batch, read_ids

from .producer import Producer

_AT_ONCE = 2
"""How many batches are on their way at once: the server works on one while another is made."""


@attrs.define(eq=False)
class _Slot:
    """One of the batches that may be on their way.

    It counts as long as somebody holds it: interrupted between any two steps, nobody does.
    """

    messages: int = 0


@attrs.define(eq=False)
class _Waiting:
    """A message whose caller waits for what becomes of it."""

    fields: list[bytes] = attrs.field(repr=False)
    ticket: threads.Ticket = attrs.field(factory=threads.Ticket)
    slot: _Slot | None = None
    """What its caller is to send the next batch with."""
    written: str = ""
    failure: Exception | None = None
    is_gone: bool = False
    """Whether its caller was interrupted."""

    @property
    def is_over(self) -> bool:
        """Whether it is known what became of it."""
        return bool(self.written) or self.failure is not None

    def failed(self, error: Exception) -> None:
        """Let its caller raise an error, which is its own, since the call adds to it."""
        self.failure = copy(error)
        self.failure.__cause__ = error.__cause__
        self.ticket.wake()


@attrs.define(eq=False)
class _Batch:
    """Messages that are sent together; it is there until all their callers are told."""

    messages: list[_Waiting]
    owner: Callable[[], _Slot | None]
    """Who sends it; if that is nobody any more, the next one goes on."""
    numbered: Numbered | None = None
    result: tuple[list[str], ResponseError | None] | None = None
    """The ids of those that were written, and why the one behind them was not, if it was not."""
    failure: Exception | None = None


@attrs.define(eq=False)
class _Queue:
    """What is not done yet. Messages go from one part to the other by a change of the whole.

    So a KeyboardInterrupt, which may strike between any two steps, finds each in one of them.
    """

    waiting: deque[_Waiting] = attrs.field(factory=deque)
    sent: list[_Batch] = attrs.field(factory=list)

    def orphans(self) -> list[_Batch]:
        """Return the batches whose sender was interrupted."""
        return [sent for sent in self.sent if sent.owner() is None]


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
        self._guard = threads.Guard()
        self._slots: WeakSet[_Slot] = WeakSet()
        self._queue = _Queue()

    def publish(self, fields: list[bytes]) -> str:
        """Append a message; return its id.

        Raises:
            StepRedisError: It was refused, or nobody knows whether it was written.
        """
        with self._guard:
            alone = None if self._slots else _Slot(1)
            if alone is not None:
                self._slots.add(alone)
        if alone is None:
            return self._publish_together(_Waiting(fields))
        # In the caller's own time: if that is cut short, nobody else is concerned.
        try:
            numbered = self._producer.number(self._stream, batch([fields], self._options))
            result = self._producer.finish(numbered, lambda: self._make_way(alone))
        finally:
            self._make_way(alone)
        [written], _ = _read(result, 1)
        return written

    def _publish_together(self, waiting: _Waiting) -> str:
        try:
            with self._guard:
                self._queue.waiting.append(waiting)
                self._appoint()
            while not waiting.is_over:
                if waiting.slot is not None:
                    # Those who are about to publish come along.
                    threads.give_way()
                    slot, waiting.slot = waiting.slot, None
                    threads.start(self._send, slot)
                    continue
                waiting.ticket.wait()
                if not waiting.is_over:
                    with self._guard:
                        self._appoint()
        except BaseException:
            self._leave(waiting)
            raise
        if waiting.failure is not None:
            raise waiting.failure
        return waiting.written

    def _send(self, slot: _Slot) -> None:
        """Send a batch of those that wait; it is a job, since whoever sends may be cancelled."""
        try:
            with self._guard:
                sent = self._next(slot)
            if sent is not None:
                if sent.result is None and sent.failure is None:
                    self._find_out(sent, slot)
                self._tell(sent)
        finally:
            with self._guard:
                for left in self._queue.sent:
                    if left.owner() is slot:
                        left.owner = nobody
            self._make_way(slot)

    def _next(self, slot: _Slot) -> _Batch | None:
        """Return what to send: half of all that there is, so that two batches are alike."""
        queue = self._queue
        for left in queue.orphans():
            left.owner = ref(slot)
            return left
        if not queue.waiting:
            return None
        on_their_way = sum(one.messages for one in self._slots)
        most = min(CHUNK_MESSAGES, (len(queue.waiting) + on_their_way + 1) // _AT_ONCE)
        taken: list[_Waiting] = []
        size = seen = 0
        for waiting in islice(queue.waiting, most):
            size += sum(map(len, waiting.fields))
            if taken and size > CHUNK_BYTES:
                break
            seen += 1
            if not waiting.is_gone:
                taken.append(waiting)
        others = deque(islice(queue.waiting, seen, None))
        if not taken:
            self._queue = _Queue(others, queue.sent)
            return None
        sent = _Batch(taken, ref(slot))
        self._queue = _Queue(others, [*queue.sent, sent])
        slot.messages = len(taken)
        return sent

    def _find_out(self, sent: _Batch, slot: _Slot) -> None:
        """Send a batch until it is known what came of it, which is noted in it."""
        try:
            if sent.numbered is None:
                operation = batch([one.fields for one in sent.messages], self._options)
                sent.numbered = self._producer.number(self._stream, operation)
            result = self._producer.resolve(sent.numbered, lambda: self._make_way(slot))
            sent.result = _read(result, len(sent.messages))
        except Exception as error:  # noqa: BLE001 - each of the callers raises it
            is_known = isinstance(error, StepRedisError) and not error.outcome_unknown
            if sent.numbered is not None and not is_known:
                # Nobody knows what came of it, so that its number must not be used again.
                sent.numbered.interrupted()
            sent.failure = error
        except BaseException:
            # What came of it is asked for by somebody else.
            if sent.numbered is not None:
                sent.numbered.interrupted()
            raise

    def _tell(self, sent: _Batch) -> None:
        """Tell the callers of a batch; after an interrupt, all of them once more."""
        untried: list[_Waiting] = []
        if sent.result is not None:
            ids, refusal = sent.result
            for waiting, written in zip(sent.messages, ids, strict=False):
                waiting.written = written
                waiting.ticket.wake()
            if refusal is not None:
                refused, *untried = sent.messages[len(ids) :]
                refused.failed(reply_failure(refusal, self._producer.connections.target))
        elif sent.failure is not None:
            for waiting in sent.messages:
                waiting.failed(sent.failure)
        self._done(sent, untried)
        if sent.numbered is not None:
            self._producer.let_go(sent.numbered, is_done=sent.result is not None)

    def _done(self, sent: _Batch, untried: list[_Waiting]) -> None:
        """All callers of a batch were told, but those whose messages go with the next one."""
        with self._guard:
            waiting = self._queue.waiting
            others = [one for one in self._queue.sent if one is not sent]
            self._queue = _Queue(deque([*untried, *waiting]) if untried else waiting, others)

    def _make_way(self, slot: _Slot) -> None:
        """Let others go: a batch has arrived, or its reply was lost, which may take long."""
        with self._guard:
            self._slots.discard(slot)
            if self._queue.waiting or self._queue.sent:
                self._appoint()

    def _appoint(self) -> None:
        """Let some who wait send the next batches; the guard is held."""
        if len(self._slots) >= _AT_ONCE:
            return
        left = [waiting for sent in self._queue.orphans() for waiting in sent.messages]
        for waiting in chain(left, self._queue.waiting):
            if waiting.slot is None and not waiting.is_gone and not waiting.is_over:
                waiting.slot = _Slot()
                self._slots.add(waiting.slot)
                waiting.ticket.wake()
                if len(self._slots) >= _AT_ONCE:
                    return

    def _leave(self, waiting: _Waiting) -> None:
        """A caller was interrupted; if its message was not sent yet, it never is."""
        with self._guard:
            waiting.is_gone = True
            with suppress(ValueError):
                # It may have been sent.
                self._queue.waiting.remove(waiting)
            if waiting.slot is not None:
                self._slots.discard(waiting.slot)
                waiting.slot = None
            self._appoint()
            if not self._slots:
                # Nobody is left who waits for what nobody sends.
                living = [sent for sent in self._queue.sent if sent.owner() is not None]
                self._queue = _Queue(sent=living)


def _read(result: bytes, count: int) -> tuple[list[str], ResponseError | None]:
    """Return what `read_ids` does; refuse ids of other messages, rather than tell anybody those."""
    ids, refusal = read_ids(result)
    if len(ids) > count or (len(ids) < count) != (refusal is not None):
        raise StepRedisError(
            f"the server answered with {len(ids)} ids for {count} messages", outcome_unknown=True
        )
    return ids, refusal
