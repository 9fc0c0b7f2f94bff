"""What the processes of the torture test have in common: how they begin and how they end."""

import faulthandler
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from torture import plants
from torture.journal import Journal

_LIFE_SECONDS = 900


def begin(journal: str, plant: str) -> Journal:
    """Begin a process that ends with its parent; plant a bug, unless it is ""."""
    signal.alarm(_LIFE_SECONDS)
    faulthandler.register(signal.SIGUSR1)
    # Until there is something to stop, and a handler that stops it.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    _end_with(os.getppid())
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    if plant:
        plants.plant(plant)
    return Journal(Path(journal))


def listen() -> Callable[[], bool]:
    """Return what says whether this process was told to stop (SIGTERM)."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    return lambda: bool(told)


def _end_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
