"""What is known of one run: the truth about each group, and what each consumer was told."""

import attrs
from redis.exceptions import ResponseError

from model.truth import Token, Truth
from model.world import Group, Request, World
from step_redis.commands import read_deliveries
from step_redis.lease import Held, Member
from step_redis.messages import Delivery
from step_redis.script_calls import read_messages, read_polled


class InvariantError(AssertionError):
    """Something happened that must never happen; the message has the last events."""


@attrs.define(eq=False)
class Evidence:
    """What the judges of a run share."""

    world: World
    truths: dict[Group, Truth]
    members: dict[Group, list[Member]]
    """Those whose holdings count: not the crashed ones, nor those that are leaving."""
    started: set[Token] = attrs.field(factory=set)
    """Deliveries whose handling began."""
    accounts: dict[Held, list[Request]] = attrs.field(factory=dict)
    """For each message that was ever held: what was sent to settle it."""

    def violated(self, what: str, *about: object) -> InvariantError:
        events = "\n".join(self.world.log)
        return InvariantError(f"{what}: {' '.join(map(str, about))}\n{events}")

    def lives(self, group: Group, names: list[str]) -> bool:
        """Whether one of the names has a lease."""
        return any(self.truths[group].alive(name, self.world.now) for name in names)

    def is_excused(self, group: Group, names: list[str], message_id: str) -> bool:
        """Whether a fault explains that somebody is wrong about a message."""
        truth = self.truths[group]
        return (
            message_id in truth.odd
            or any(name in truth.voided for name in names)
            or not self.world.has_entry(group.stream, message_id)
        )

    def retire(self, group: Group, member: Member) -> None:
        """A consumer crashed or is about to leave: what it holds does not count any more."""
        if member in self.members[group]:
            self.members[group].remove(member)


def names_of(member: Member) -> list[str]:
    """Return the names under which a consumer may have a lease."""
    return [name for name in (member.name, *member.old_names) if name is not None]


def code_of(request: Request) -> str:
    """Return how a request ended; "" is a read that brought what there was."""
    reply = request.reply
    if isinstance(reply, ResponseError):
        return "NOGROUP" if "NOGROUP" in str(reply) else str(reply)
    return "" if request.kind == "read" else str(reply[0].decode())


def deliveries_of(request: Request) -> list[Delivery]:
    """Return the messages that a successful request brought."""
    match request.kind:
        case "read":
            entries = read_deliveries(request.reply)
            return [Delivery(message_id, fields or [], 1) for message_id, fields in entries]
        case "poll":
            return read_polled(request.reply).deliveries
    return read_messages(request.reply[1:])
