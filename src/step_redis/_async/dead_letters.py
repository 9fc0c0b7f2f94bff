# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""The dead letters of one group: found, and delivered again."""

from typing import Any

from redis.exceptions import ResponseError

from step_redis import script_calls
from step_redis.commands import Command, EntryId, entry_id, read_entries, xrange, xrange_after
from step_redis.dead_letters import comes_from
from step_redis.errors import ConfigurationError
from step_redis.failures import reply_failure
from step_redis.keys import GroupKeys, redrive_group

from .connections import Connections

_PAGE = 500


class DeadLetters:
    """The entries of a dead-letter stream that one group of one stream gave up."""

    def __init__(self, connections: Connections, dead: str, stream: str, group: str) -> None:
        self._connections = connections
        self._dead, self._stream, self._group = dead, stream, group
        self._redrive_group = redrive_group(stream, group)

    async def redrive(
        self, ids: list[str] | None, limit: int | None, *, dry_run: bool
    ) -> list[str]:
        """Deliver those with the ids again, or all, up to a limit; return the ids of those."""
        deliver = self._look_at if dry_run else self._deliver
        if ids is not None:
            await self._check(ids)
            return await deliver(ids, limit)
        found: list[str] = []
        after: EntryId | None = None
        while limit is None or len(found) < limit:
            [reply] = await self._call(xrange_after(self._dead, after, _PAGE))
            entries = read_entries(reply)
            page = [id_ for id_, fields in entries if self._is_ours(fields)]
            found += await deliver(page, None if limit is None else limit - len(found))
            if len(entries) < _PAGE:
                break
            after = entry_id(entries[-1][0])
        return found

    async def _check(self, ids: list[str]) -> None:
        replies = await self._call(*(xrange(self._dead, id_) for id_ in ids)) if ids else []
        missing = [
            id_
            for id_, reply in zip(ids, replies, strict=True)
            if not any(self._is_ours(fields) for _, fields in read_entries(reply))
        ]
        if missing:
            raise ConfigurationError(
                f"no dead letters of group {self._group!r} in {self._dead!r}: {', '.join(missing)}."
                " Ids are those of the dead-letter stream; what was redriven and settled is gone"
            )

    def _is_ours(self, fields: list[bytes] | None) -> bool:
        return fields is not None and comes_from(fields, self._stream, self._group)

    async def _look_at(self, ids: list[str], limit: int | None) -> list[str]:
        """Return those that are not on their way already."""
        group = self._redrive_group
        asked = [("XPENDING", self._dead, group, id_, id_, 1) for id_ in ids]
        replies = await self._connections.call(*asked) if asked else []
        # Without the group none is on its way.
        return [
            id_
            for id_, reply in zip(ids, replies, strict=True)
            if isinstance(reply, ResponseError) or not reply
        ][:limit]

    async def _deliver(self, ids: list[str], limit: int | None) -> list[str]:
        """Let those be delivered that are not on their way already; return their ids."""
        if not ids:
            return []
        keys, most = GroupKeys.of(self._dead, self._redrive_group), -1 if limit is None else limit
        reply = await self._connections.run(
            script_calls.redrive(keys, self._redrive_group, ids, most),
            effect="messages may be on their way; redriving again changes nothing",
        )
        return [id_.decode() for id_ in reply[1:]]

    async def _call(self, *commands: Command) -> list[Any]:
        replies = await self._connections.call(*commands)
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise reply_failure(reply, self._connections.target)
        return replies
