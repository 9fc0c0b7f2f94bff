# Generated from _async/outbox.py by build_hooks/generate_sync.py. Do not edit.
"""Messages that are published at the same time, sent together."""

from collections import deque
from collections.abc import Sequence
from itertools import chain, islice
from math import ceil
from weakref import ref

from redis.exceptions import ResponseError

from step_redis._backend import threads
from step_redis.commands import Argument
from step_redis.deadline import now
from step_redis.errors import StepRedisError
from step_redis.failures import no_stream, reply_failure
from step_redis.place import Counted, nobody
from step_redis.publishing import CHUNK_MESSAGES, batch, read_ids
from step_redis.scripts import MOST_VALUES

from .outgoing import Batch, Queue, Slot, Waiting, fitting
from .producer import Producer

_LATE = 2
"""So many calls more may be on their way while others hang."""


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
        self._slots: Counted[Slot] = Counted()
        self._late: Counted[Slot] = Counted()
        """Those that others do not wait for any more."""
        self._at_once = threads.batches_at_once(0)
        self._queue = Queue()
        self._gone = 0
        """How many may be in the queue whose callers were interrupted."""

    def publish(self, fields: list[bytes]) -> str:
        """Append a message; return its id.

        Raises:
            StepRedisError: It was refused, or nobody knows whether it was written.
        """
        if len(fields) > MOST_VALUES or self._producer.is_plain(self._stream):
            return self._publish_plainly(fields)
        try:
            slot = self._begin_alone()
            if slot is not None:
                return self._publish_alone(fields, slot)
            # What many do at once is written out here: each call in between would cost a twentieth.
            waiting = Waiting(fields)
            try:
                with self._guard:
                    self._queue.waiting.append(waiting)
                    if len(self._slots.refs) < self._at_once:
                        self._appoint()
                while not waiting.written:
                    if waiting.slot is None:
                        threads.woken(waiting.ticket)
                    if not waiting.written:
                        self._go_on(waiting)
            except BaseException:
                self._leave(waiting)
                raise
        except StepRedisError as error:
            return self._fall_back(fields, error)
        else:
            return self._seen(waiting)

    def _seen(self, waiting: Waiting) -> str:
        """Return the id of a message; leave to others what its caller has not come to do."""
        threads.pass_on(waiting.ticket)
        if waiting.slot is not None:
            self._make_way(waiting.slot)
        return waiting.written

    def _fall_back(self, fields: list[bytes], error: StepRedisError) -> str:
        """Append a message plainly, if a script could not be used; raise the failure if not."""
        if not self._producer.may_fall_back(error):
            raise error
        written = self._publish_plainly(fields)
        self._producer.fell_back(self._stream, error)
        return written

    def _publish_plainly(self, fields: list[bytes]) -> str:
        [reply] = self._producer.add_plainly(self._stream, [fields], self._options)
        if isinstance(reply, ResponseError):
            raise reply_failure(reply, self._producer.connections.target)
        if reply is None:
            raise no_stream()
        written: str = reply.decode()
        return written

    def _begin_alone(self) -> Slot | None:
        """Return a slot if nothing is on its way."""
        if self._slots.refs:
            return None
        with self._guard:
            if self._slots.refs:
                return None
            slot = Slot(1)
            self._slots.add(slot)
            return slot

    def _publish_alone(self, fields: list[bytes], slot: Slot) -> str:
        """Append a message in its caller's own time: if it is cut short, no other is concerned."""
        try:
            numbered = self._producer.number(self._stream, batch([fields], self._options))
            result = self._producer.finish(numbered, lambda: self._make_way(slot))
            self._at_once = threads.batches_at_once(now() - slot.began_at)
        finally:
            self._make_way(slot)
        [written], _ = _read(result, 1)
        return written

    def _go_on(self, waiting: Waiting) -> None:
        """Do what a caller was woken for: raise its failure, or send the next batch."""
        with self._guard:
            # Whoever woke it before told it something, which is looked at now.
            threads.pass_on(waiting.ticket)
            waiting.ticket = threads.ticket()
        if waiting.failure is not None:
            raise waiting.failure
        if waiting.slot is not None:
            # Those who are about to publish come along.
            threads.give_way()
            threads.start(self._send, waiting.slot)
            with self._guard:
                waiting.slot = None
                self._appoint()
        elif not waiting.written:
            with self._guard:
                self._appoint()

    def _send(self, slot: Slot) -> None:
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
                self._give_up(slot)
            self._make_way(slot)

    def _next(self, slot: Slot) -> Batch | None:
        """Return what to send: of all that there is so much that all batches are alike."""
        queue = self._queue
        for left in queue.orphans():
            left.owner = ref(slot)
            return left
        if not queue.waiting:
            return None
        together = len(queue.waiting) + sum(one.messages for one in self._slots.things())
        most = min(CHUNK_MESSAGES, ceil(together / self._at_once))
        first = list(islice(queue.waiting, most))
        seen = fitting(first)
        taken = [waiting for waiting in first[:seen] if not waiting.is_gone]
        others = deque(islice(queue.waiting, seen, None))
        if not taken:
            self._queue = Queue(others, queue.sent)
            return None
        sent = Batch(taken, ref(slot))
        self._queue = Queue(others, [*queue.sent, sent])
        slot.messages = len(taken)
        return sent

    def _find_out(self, sent: Batch, slot: Slot) -> None:
        """Send a batch until it is known what came of it, which is noted in it."""
        try:
            if sent.numbered is None:
                operation = batch([one.fields for one in sent.messages], self._options)
                sent.numbered = self._producer.number(self._stream, operation)
            slot.began_at = now()
            result = self._producer.resolve(sent.numbered, lambda: self._make_way(slot))
            self._at_once = threads.batches_at_once(now() - slot.began_at)
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

    def _tell(self, sent: Batch) -> None:
        """Tell the callers of a batch; after an interrupt, all of them once more."""
        untried: list[Waiting] = []
        if sent.result is not None:
            ids, refusal = sent.result
            with self._guard:
                told = [one.ticket for one in sent.messages[: len(ids)] if not one.is_gone]
                # First: who sees its id may be gone the next moment.
                threads.line_up(told)
                for waiting, written in zip(sent.messages, ids, strict=False):
                    waiting.written = written
                threads.wake_all(told)
            if refusal is not None:
                refused, *untried = sent.messages[len(ids) :]
                refused.failed(reply_failure(refusal, self._producer.connections.target))
        elif sent.failure is not None:
            for waiting in sent.messages:
                waiting.failed(sent.failure)
        self._done(sent, untried)
        if sent.numbered is not None:
            self._producer.let_go(sent.numbered, is_done=sent.result is not None)

    def _done(self, sent: Batch, untried: list[Waiting]) -> None:
        """All callers of a batch were told, but those whose messages go with the next one."""
        with self._guard:
            waiting = self._queue.waiting
            others = [one for one in self._queue.sent if one is not sent]
            self._queue = Queue(deque([*untried, *waiting]) if untried else waiting, others)

    def _make_way(self, slot: Slot) -> None:
        """Let others go: a batch has arrived, or its reply was lost, which may take long."""
        with self._guard:
            self._slots.discard(slot)
            self._late.discard(slot)
            if self._queue.waiting or self._queue.sent:
                self._appoint()

    def _give_up(self, slot: Slot) -> None:
        """Let others go on with what was not done with a slot; the guard is held."""
        for left in self._queue.sent:
            if left.owner() is slot:
                left.owner = nobody

    def _appoint(self) -> None:
        """Let some who wait send the next batches; the guard is held."""
        for slot in self._slots.things():
            # A call hangs, or somebody keeps the traceback of a KeyboardInterrupt that holds it.
            if slot.is_late and len(self._late.refs) < _LATE:
                self._late.add(slot)
                self._slots.discard(slot)
        room = self._at_once - len(self._slots.refs)
        if room <= 0:
            return
        left = [waiting for sent in self._queue.orphans() for waiting in sent.messages]
        for waiting in chain(left, self._queue.waiting):
            is_over = waiting.written or waiting.failure is not None
            if waiting.slot is None and not waiting.is_gone and not is_over:
                slot = Slot()
                # In this order: one that does not count would never be given up.
                self._slots.add(slot)
                waiting.slot = slot
                threads.wake(waiting.ticket)
                room -= 1
                if not room:
                    return

    def _leave(self, waiting: Waiting) -> None:
        """A caller was interrupted; if its message was not sent yet, it never is."""
        with self._guard:
            waiting.is_gone = True
            threads.pass_on(waiting.ticket)
            self._gone += 1
            if 2 * self._gone > len(self._queue.waiting):
                # Not each by itself: thousands may be cancelled at once.
                staying = deque(one for one in self._queue.waiting if not one.is_gone)
                self._queue, self._gone = Queue(staying, self._queue.sent), 0
            if waiting.slot is not None:
                self._give_up(waiting.slot)
                self._slots.discard(waiting.slot)
                self._late.discard(waiting.slot)
                waiting.slot = None
            self._appoint()
            if not self._slots.refs:
                # Nobody is left who waits for what nobody sends.
                living = [sent for sent in self._queue.sent if sent.owner() is not None]
                self._queue = Queue(self._queue.waiting, living)


def _read(result: bytes, count: int) -> tuple[list[str], ResponseError | None]:
    """Return what `read_ids` does; refuse ids of other messages, rather than tell anybody those."""
    ids, refusal = read_ids(result)
    if len(ids) > count or (len(ids) < count) != (refusal is not None):
        raise StepRedisError(
            f"the server answered with {len(ids)} ids for {count} messages", outcome_unknown=True
        )
    return ids, refusal
