"""What the server does must be right after every step, whatever went wrong.

The oracle knows with whom each message is pending before and after a request (`XPENDING`), and
keeps its own account of leases, due times and deliveries. It never reads the records that the
scripts keep.
"""

from typing import Any

import attrs
from redis.exceptions import ResponseError

from model.evidence import Evidence, code_of, deliveries_of
from model.ownership import Ownership
from model.truth import Row
from model.world import LEASE_MS, Group, Request
from step_redis.commands import entry_id
from step_redis.lease import Outcome
from step_redis.script_calls import ScriptCall

FENCED = {"poll", "ack", "park", "copy", "leave"}
ALL = 100_000


@attrs.define(eq=False)
class Oracle:
    """Executes requests, and judges what the server did."""

    evidence: Evidence

    def execute(self, request: Request) -> None:
        """Run a request on the server and check what it did.

        Raises:
            InvariantError: It did something else than it must.
        """
        group, world = request.group, self.evidence.world
        commands = [request.command, ("XPENDING", group.stream, group.name, "-", "+", ALL)]
        if target := request.about.get("target"):
            commands = [("XLEN", target), *commands, ("XLEN", target)]
        replies = world.run(*commands)
        if target:
            request.about["grown"] = replies[-1] - replies[0]
            replies = replies[1:-1]
        request.reply, rows = replies
        world.note(f"executed {request.kind}", _shown(request))
        self._judge(request, rows)

    def _judge(self, request: Request, rows: Any) -> None:
        truth, code = self.evidence.truths[request.group], code_of(request)
        self._check_code(request, code)
        if request.kind == "ensure" and code == "MADE":
            self._begin_anew(request.group, request.reply[1].decode())
        if request.kind == "redrive" and code == "OK":
            truth.exists = True
        if isinstance(rows, ResponseError) == truth.exists:
            raise self._violated("the group is there, or not, against expectation", request)
        had_lease = truth.alive(request.name, self.evidence.world.now)
        self._note_leases(request, code)
        before, truth.pending = truth.pending, _pending(rows)
        changed = self._changed(request, code, before)
        ownership = Ownership(self.evidence, request, had_lease)
        for message_id in changed:
            was, row = before.get(message_id), truth.pending.get(message_id)
            count = ownership.count_after(message_id, was, row)
            if row and row.count != count:
                raise self._violated("wrong count", message_id, was, row, request)
        if request.helds and code == "OK":
            self._check_settlement(request, before)
        if request.kind in ("read", "join", "poll") and code in ("OK", ""):
            self._check_deliveries(request, changed)

    def _check_code(self, request: Request, code: str) -> None:
        """Each request succeeds or fails as the leases demand."""
        truth, now = self.evidence.truths[request.group], self.evidence.world.now
        names = request.about.get("old_names", ())
        match request.kind:
            case "ensure":
                expected = {"THERE" if truth.exists else "MADE"}
            case "redrive":
                expected = {"OK"} if truth.exists else {"OK", "GONE"}
            case "read":
                expected = {"" if truth.exists else "NOGROUP"}
            case _ if not truth.exists:
                expected = {"GONE"}
            case "join":
                may_join = not names or any(truth.alive(name, now) for name in names)
                expected = {"OK" if may_join else "LOST"}
            case kind if kind in FENCED and not truth.alive(request.name, now):
                expected = {"LOST"}
            case "leave":
                expected = {"OK", "MORE"}
            case _:
                expected = {"OK"}
        if code not in expected:
            raise self._violated("wrong reply", code, "instead of", expected, request)

    def _note_leases(self, request: Request, code: str) -> None:
        truth = self.evidence.truths[request.group]
        if code == "OK" and request.kind in ("join", "poll"):
            truth.leases[request.name] = self.evidence.world.now + LEASE_MS
            for name in request.about.get("old_names", ()):
                truth.leases.pop(name, None)
        if code == "OK" and request.kind == "leave":
            truth.leases.pop(request.name, None)

    def _changed(self, request: Request, code: str, before: dict[str, Row]) -> set[str]:
        after = self.evidence.truths[request.group].pending
        changed = {one for one in before.keys() | after.keys() if before.get(one) != after.get(one)}
        if request.kind == "read" and not code:
            # What is delivered to its owner once more looks as if nothing had happened.
            changed |= {one.id for one in deliveries_of(request)}
        return changed

    def _check_settlement(self, request: Request, before: dict[str, Row]) -> None:
        """The reply says of each message whether it was settled; a copy is there, or is not."""
        ids = request.about["ids"]
        mine = {one for one in ids if one in before and before[one].consumer == request.name}
        if request.kind == "copy":
            refused = set() if len(request.reply) > 1 else set(ids)
            self._check_copy(request, mine)
        else:
            refused = {one.decode() for one in request.reply[1:]}
        if refused != set(ids) - mine:
            raise self._violated("wrong ids refused", refused, mine, request)
        for one in mine - request.settled:
            if one in self.evidence.truths[request.group].pending:
                raise self._violated("said to be settled, but pending", one, request)
        for held in request.helds:
            if held.id in request.settled and held.outcome is Outcome.LOST:
                raise self._violated("settled after it was concluded as lost", held, request)

    def _check_copy(self, request: Request, mine: set[str]) -> None:
        grown = request.about["grown"]
        # A dead letter that is written back takes the place of its old entry, unless that is gone.
        is_replaced = request.about["target"] == request.group.stream and grown == 0
        if grown != len(mine) and not is_replaced:
            raise self._violated("wrong number of copies", grown, request)

    def _check_deliveries(self, request: Request, changed: set[str]) -> None:
        """What the reply brings is what became the sender's, with the right account."""
        truth = self.evidence.truths[request.group]
        of_sender = {one for one, row in truth.pending.items() if row.consumer == request.name}
        expected = of_sender if request.about.get("old_names") else of_sender & changed
        delivered = {one.id for one in deliveries_of(request)}
        if delivered != {
            one for one in expected if one in delivered or self._is_there(request, one)
        }:
            raise self._violated("delivered is not what is pending", delivered, expected, request)
        for one in deliveries_of(request):
            request.tokens[one.id] = truth.token(one.id)
            failures = truth.failures[one.id] + truth.forgotten[one.id]
            account = (one.count, one.lost, one.failures)
            right = (truth.pending[one.id].count, truth.lost[one.id], failures + 1)
            if account != right and request.kind != "read" and one.id not in truth.odd:
                raise self._violated("wrong account of deliveries", one, right, request)

    def _is_there(self, request: Request, message_id: str) -> bool:
        return self.evidence.world.has_entry(request.group.stream, message_id)

    def _begin_anew(self, group: Group, start: str) -> None:
        """A group was made: whatever comes after its start is delivered, and nothing else."""
        truth = self.evidence.truths[group]
        truth.exists = True
        entries = self.evidence.world.ask("XRANGE", group.stream, "-", "+")
        ids = {entry[0].decode() for entry in entries}
        again = {one for one in ids if entry_id(one) > entry_id(start if "-" in start else "0-0")}
        if skipped := ids - again - truth.settled - truth.rewound:
            raise self._violated("a new group skips what was not settled", start, skipped)
        truth.settled = (truth.settled | ids) - again

    def _violated(self, what: str, *about: object) -> Exception:
        return self.evidence.violated(what, *about)


def _pending(rows: Any) -> dict[str, Row]:
    if isinstance(rows, ResponseError):
        return {}
    return {row[0].decode(): Row(row[1].decode(), row[3]) for row in rows}


def _shown(request: Request) -> str:
    call = request.command
    about = f"{call.keys[0]} {call.args}" if isinstance(call, ScriptCall) else str(call)
    return f"{about} by {request.name}"
