"""Bugs to plant: what each of the rules is for, shown by what happens without it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import attrs

from step_redis.lease import Member
from step_redis.scripts import script

SCRIPTS = ("ack", "copy", "join", "leave", "park", "poll", "redrive")


@attrs.frozen
class Bug:
    """A change of the scripts' texts or of `Member`."""

    name: str
    texts: tuple[tuple[str, str], ...] = ()
    methods: dict[str, Callable[..., Any]] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for old, _ in self.texts:
            assert any(old in script(name).text for name in SCRIPTS), f"no script has {old!r}"
        for name in self.methods:
            assert hasattr(Member, name), f"Member has no {name}"

    @contextmanager
    def in_member(self) -> Iterator[None]:
        """Change `Member` for a while; the texts are changed by whoever sends the scripts."""
        with ExitStack() as patches:
            for name, method in self.methods.items():
                patches.enter_context(patch.object(Member, name, method))
            yield


def _goes_on_under_its_name(member: Member, _name: str) -> None:
    for held in member.held.values():
        held.attempt = None


def _takes_replies_under_other_names(method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda member, _name, deliveries, at: method(member, member.name, deliveries, at)


BUGS = [
    Bug("a name is used on after a lost reply", methods={"broke": _goes_on_under_its_name}),
    Bug(
        "replies under other names count",
        methods={
            "read": _takes_replies_under_other_names(Member.read),
            "took": _takes_replies_under_other_names(Member.took),
        },
    ),
    Bug(
        "a lease does not end by the consumer's own clock",
        methods={
            "is_alive": lambda member, _at: bool(member.name or member.old_names),
            "has_expired": lambda *_: False,
            "accepts": lambda member, name, _at: name == member.name,
        },
    ),
    Bug("a new group is not noticed", (("local is_new = made == 1", "local is_new = false"),)),
    Bug(
        "a dead name is moved from",
        (("local may_join = #names == 0", "local may_join = true"),),
    ),
    Bug("lost due times stay lost", (("has_more = mend_due_times() or has_more", ""),)),
    Bug(
        "what is handed back counts as delivered",
        (
            (
                "local count = kind == 'unstarted' and math.max(row[4] - 1, 0) or -1",
                "local count = -1",
            ),
        ),
    ),
    Bug(
        "there is no fence",
        (("if is_new or not alive(caller) then return {'LOST'} end", ""),),
    ),
    Bug(
        "the living are taken for dead", (("      if not alive(name) then", "      if true then"),)
    ),
    Bug(
        "a copy is written and not acknowledged",
        (("settle({id}, ARGV[3] == '1')\nreturn {'OK', written}", "return {'OK', written}"),),
    ),
]

NO_RENEWAL = Bug("leases are never renewed", methods={"renewed": lambda *_: None})
"""Not a bug for the oracle: leases end early, and nothing is lost."""
