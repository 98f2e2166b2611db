"""Training curves of a run, read from what it logged for TensorBoard.

Axes: S step.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

PREFIX = "loss/"


@dataclass(frozen=True, eq=False)
class Curve:
    """One loss. steps_S: int64, rising.  values_S: float64."""

    steps_S: NDArray[np.int64]
    values_S: NDArray[np.float64]

    def smoothed(self, parts: int = 60) -> NDArray[np.float64]:
        """(S,) the mean over a window about every step, as wide as one of so many parts of the curve."""
        reach = len(self.values_S) // (2 * parts)
        sums = np.concatenate([[0.0], np.cumsum(self.values_S)])
        index_S = np.arange(len(self.values_S))
        first_S = np.maximum(index_S - reach, 0)
        last_S = np.minimum(index_S + reach + 1, len(self.values_S))
        mean_S: NDArray[np.float64] = (sums[last_S] - sums[first_S]) / (last_S - first_S)
        return mean_S


def read_curves(folder: Path) -> dict[str, Curve]:
    """The losses by name, the total first; {} where nothing readable was logged.

    A run that was resumed has a file for each start; of a step that was done twice, the last time counts.
    """
    if not any(folder.glob("*tfevents*")):
        return {}
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    with _quiet():
        accumulator.Reload()
    curves = {}
    for tag in accumulator.Tags()["scalars"]:
        if tag.startswith(PREFIX):
            # The files are read in the order of their names, which within a second is not that of time.
            events = sorted(accumulator.Scalars(tag), key=lambda event: event.wall_time)
            values = {event.step: event.value for event in events}
            steps = sorted(values)
            curve = Curve(np.array(steps, np.int64), np.array([values[step] for step in steps], np.float64))
            curves[tag.removeprefix(PREFIX)] = curve
    return dict(sorted(curves.items(), key=lambda item: (item[0] != "total", item[0])))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without TensorBoard's remarks on steps that were done twice, which are no news here."""
    logger = logging.getLogger("tensorboard")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
