"""What is published: messages of three shapes, each with a number of its own."""

from typing import Any

import attrs

NUMBER = "number"


@attrs.frozen
class Payload:
    """A shape of messages; message n differs from the others in its field ``number``."""

    name: str
    fields: dict[str, str]

    def message(self, number: int) -> dict[str, str]:
        """Return message `number`."""
        return {**self.fields, NUMBER: str(number)}

    @property
    def size(self) -> int:
        """How many bytes the names and values have, without the number."""
        return sum(len(name) + len(value) for name, value in self.fields.items())


SMALL = Payload("100 B", {"payload": "x" * 100})
KILOBYTE = Payload("1 KB", {"payload": "x" * 1024})
FIELDS = Payload("20 fields", {f"field_{n:02}": f"value {n} of it" for n in range(19)})
PAYLOADS = {payload.name: payload for payload in (SMALL, KILOBYTE, FIELDS)}

# The server writes them to itself: it takes a microsecond a message.
_FILL = """
local fields = {}
for i = 4, #ARGV do fields[i - 3] = ARGV[i] end
local place = #fields + 2
fields[place - 1] = ARGV[3]
for number = ARGV[1], ARGV[2] do
  fields[place] = string.format('%d', number)
  redis.call('XADD', KEYS[1], '*', unpack(fields))
end
"""
_FILL_STEP = 10_000


def fill(client: Any, stream: str, payload: Payload, count: int, start: int = 0) -> None:
    """Write messages `start` to ``start + count - 1`` to a stream, as any client would."""
    script = client.register_script(_FILL)
    flat = [word for field in payload.fields.items() for word in field]
    for first in range(start, start + count, _FILL_STEP):
        last = min(first + _FILL_STEP, start + count) - 1
        script(keys=[stream], args=[first, last, NUMBER, *flat])
