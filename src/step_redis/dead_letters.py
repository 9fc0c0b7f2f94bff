"""What a dead letter says beside its message: where it came from, how often and why it failed."""

from collections.abc import Mapping, Sequence

from step_redis.codec import HEADER_PREFIX
from step_redis.commands import is_entry_id

__all__ = [
    "DELIVERED_FIELDS",
    "comes_from",
    "dead_letter_fields",
    "original_id",
    "provenance",
    "text_of",
    "without_provenance",
]

_PREFIX = "_step:dead:"
"""What the names of the headers begin with; headers that users give cannot."""

_FIELD = f"{HEADER_PREFIX}{_PREFIX}"

DELIVERED_FIELDS = (f"{_FIELD}first-delivered", f"{_FIELD}last-delivered")
"""The fields, in ms by the server's clock, that the script adds which writes the dead letter."""

_ORIGIN = frozenset({"stream", "id", "group"})

_TEXT_LIMIT = 2000


def dead_letter_fields(
    fields: Sequence[bytes],
    *,
    stream: str,
    message_id: str,
    group: str,
    consumer: str,
    deliveries: int,
    error_type: str,
    error_text: str,
) -> list[bytes]:
    """Return the fields of a dead letter: the message's own, untouched, then the provenance.

    A message that had been a dead letter before keeps where it first came from.
    """
    before = dict(zip(fields[::2], fields[1::2], strict=True))
    own: list[bytes] = []
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if not name.startswith(_FIELD.encode()):
            own += (name, value)
    said = {
        "stream": stream,
        "id": message_id,
        "group": group,
        "consumer": consumer,
        "deliveries": str(deliveries),
        "error-type": error_type,
        "error": error_text[:_TEXT_LIMIT],
    }
    for header, text in said.items():
        field = f"{_FIELD}{header}".encode()
        now = text.encode(errors="backslashreplace")
        own += (field, before.get(field, now) if header in _ORIGIN else now)
    return own


def comes_from(fields: Sequence[bytes], stream: str, group: str) -> bool:
    """Whether an entry of a dead-letter stream came from that group of that stream."""
    said: Mapping[bytes, bytes] = dict(zip(fields[::2], fields[1::2], strict=True))
    return (
        said.get(f"{_FIELD}stream".encode()) == stream.encode()
        and said.get(f"{_FIELD}group".encode()) == group.encode()
    )


def provenance(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what the headers of a dead letter say of where it came from."""
    said = [(name, text) for name, text in headers.items() if name.startswith(_PREFIX)]
    return {name.removeprefix(_PREFIX): text for name, text in said}


def without_provenance(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that the user gave."""
    return {name: text for name, text in headers.items() if not name.startswith(_PREFIX)}


def text_of(error: BaseException) -> str:
    """Return what an error says; those of users may fail even at that."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever it is, the message must go on
        return "(its text cannot be had)"


def original_id(fields: Sequence[bytes]) -> str | None:
    """Return the id that a dead letter was first published with; None if it does not say."""
    said = dict(zip(fields[::2], fields[1::2], strict=True)).get(f"{_FIELD}id".encode(), b"")
    text = said.decode(errors="replace")
    return text if is_entry_id(text) else None
