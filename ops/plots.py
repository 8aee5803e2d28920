"""Plots of an evaluation; needs matplotlib, an optional extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from models.errors import NotConfigured


def plot_over_time(curves: Mapping[str, Sequence[float]], file: Path) -> None:
    """Plot MRR@20 of each model over the stream to `file`, PNG or SVG by its name.

    Raises
    ------
    NotConfigured
        matplotlib is not installed, or does not know the format of the file's name.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise NotConfigured(
            "a plot needs matplotlib: pip install 'streaming-recommender[evaluation]'"
        ) from error
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot([(n + 0.5) / len(values) for n in range(len(values))], values, label=name)
    axes.set(xlabel="share of the queries, in the order of time", ylabel="MRR@20", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    try:
        figure.savefig(file)
    except ValueError as error:
        raise NotConfigured(f"cannot plot to {file}: {error}") from error
