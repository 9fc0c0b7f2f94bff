"""The results as a picture for the README."""

from collections.abc import Sequence
from pathlib import Path

from .payloads import SMALL
from .rows import Row


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw how many times faster step_redis is than peers; the suffix says the format.

    It shows small messages and what has a goal: the rest would not fit beside it.
    """
    import matplotlib as mpl  # noqa: PLC0415 - needed for the picture only

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    shown = [
        row
        for row in rows
        if row.ratio is not None
        and row.what.endswith(SMALL.name)
        and (row.goal is not None and row.goal.kind == "least")
        and not row.peer.startswith("step_redis")
    ]
    labels = [f"{row.what.removesuffix(f', {SMALL.name}')}\nagainst {row.peer}" for row in shown]
    ratios = [row.ratio or 0.0 for row in shown]
    figure, axes = plt.subplots(figsize=(9, 0.5 * len(shown) + 1))
    bars = axes.barh(labels, ratios, color="#2a6f97")
    axes.bar_label(bars, [f"{ratio:.2g} x" for ratio in ratios], padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.axvline(1, color="#888888", linewidth=1)
    axes.set_xlabel("times as many messages a second as the peer, in the same run")
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path)
