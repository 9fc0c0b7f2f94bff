"""What is so in a group, as far as the model knows without believing the records on the server."""

import itertools
from collections import Counter
from typing import Self

import attrs

PARKED = "_step:parked"

_epochs = itertools.count(1)


@attrs.frozen
class Row:
    """Who a message is pending with, and how many times it was delivered."""

    consumer: str
    count: int


@attrs.frozen
class Token:
    """One delivery of one message; its handling begins once at most."""

    epoch: int
    id: str
    life: int
    count: int


@attrs.define
class Truth:
    """One group from when it was made; `made_anew` after it was lost."""

    exists: bool = False
    epoch: int = attrs.field(factory=lambda: next(_epochs))
    pending: dict[str, Row] = attrs.field(factory=dict)
    leases: dict[str, int] = attrs.field(factory=dict)
    due: dict[str, int] = attrs.field(factory=dict)
    lives: Counter[str] = attrs.field(factory=Counter)
    """How many times a message was delivered as a new one."""
    failures: Counter[str] = attrs.field(factory=Counter)
    lost: Counter[str] = attrs.field(factory=Counter)
    """Deliveries that ended with their consumer."""
    interrupted: Counter[str] = attrs.field(factory=Counter)
    """Deliveries that ended because their consumer left."""
    forgotten: Counter[str] = attrs.field(factory=Counter)
    """Lost deliveries that look like failures since the record of them was evicted."""
    settled: set[str] = attrs.field(factory=set)
    rewound: set[str] = attrs.field(factory=set)
    """Settled ids that something other than the library makes the group deliver again."""
    odd: set[str] = attrs.field(factory=set)
    """Ids whose owner or count a fault changed behind the back of the consumers."""
    voided: set[str] = attrs.field(factory=set)
    """Names whose lease a fault ended, or may have, without their knowing."""

    def alive(self, name: str, now: int) -> bool:
        return self.leases.get(name, 0) > now

    def token(self, message_id: str) -> Token:
        count = self.pending[message_id].count
        return Token(self.epoch, message_id, self.lives[message_id], count)

    def void_leases(self) -> None:
        """End all leases without telling."""
        self.voided |= self.leases.keys()
        self.leases.clear()

    def rewind(self, ids: set[str]) -> None:
        """The group will deliver these again although they are settled."""
        self.rewound |= self.settled & ids
        self.settled -= ids

    def settle(self, message_id: str) -> None:
        """A message is settled for good."""
        self.settled.add(message_id)
        for record in (self.due, self.failures, self.lost, self.interrupted, self.forgotten):
            record.pop(message_id, None)

    def vanish(self, message_id: str) -> None:
        """A message is not pending any more since its entry was deleted."""
        for record in (self.due, self.failures, self.lost, self.interrupted, self.forgotten):
            record.pop(message_id, None)

    def gone(self) -> Self:
        """Return what is left after the group was deleted: what was settled, and whom it fooled."""
        voided = self.voided | self.leases.keys()
        return type(self)(settled=self.settled, rewound=self.rewound, voided=voided)

    def copy(self) -> Self:
        """Return what a replica knows from now on."""
        copied = {
            field.alias: value.copy() if isinstance(value, dict | set) else value
            for field in attrs.fields(type(self))
            for value in [getattr(self, field.name)]
        }
        return type(self)(**copied)
