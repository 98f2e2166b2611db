"""Samples from tars, in the order that training wants them: read ahead by threads, kept on a shelf.

`order.stream_order` says beforehand which sample every batch takes. One thread for each lane reads tars from
their beginning and puts each wanted sample on the shelf of its step; a lane never holds more samples than
its part of the shuffle buffer and those to read ahead: some batches' worth, at least READ_AHEAD_SAMPLES. What
a batch holds does not depend on the threads.

Axes: N sample, B present body of one sample, P packed present body, L lane, S step, C channel, T frame,
V joint.
"""

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.order import StreamOrder, steps_per_epoch, stream_order
from pipeline.store.tar_shard import TarShards

# About what one request to a web server brings, in every lane: it comes while these are used up.
READ_AHEAD_SAMPLES = 64
JOIN_SECONDS = 1.0

Bodies = NDArray[np.float32]


class ClosedError(RuntimeError):
    """Ends the threads of a feed that is closed."""


@dataclass(frozen=True)
class Place:
    """Where a sample that is read belongs.

    step, column: the batch, and the place in this rank's part of it.  lane: who reads it.
    earliest: the step that must be the oldest one not yet taken before this sample may be held.
    relaxed: if it is not, the step to wait for, at which there is room for more.
    """

    step: int
    column: int
    lane: int
    earliest: int
    relaxed: int


class Shelf:
    """The samples that were read and not yet taken, by step. Any number of threads may put and take.

    lanes_N: the lane of every sample of this rank's part of a batch.
    first_step: the first that will be taken.
    """

    def __init__(self, lanes_N: list[int], first_step: int) -> None:
        self._lanes = lanes_N
        self._held: dict[int, dict[int, Bodies]] = {}
        self._missing: dict[int, dict[int, int]] = {}
        self._taken: set[int] = set()
        self._oldest = first_step
        self._errors: dict[int, BaseException] = {}
        self._closed = False
        lock = threading.Lock()
        self._room, self._filled = threading.Condition(lock), threading.Condition(lock)

    def put(self, place: Place, bodies_BCTV: Bodies) -> None:
        """Wait until there is room, then hold the sample. Raises ClosedError."""
        with self._room:
            if self._oldest < place.earliest:
                self._room.wait_for(lambda: self._closed or self._oldest >= place.relaxed)
            if self._closed:
                raise ClosedError
            self._held.setdefault(place.step, {})[place.column] = bodies_BCTV
            missing = self._missing_of(place.step)
            missing[place.lane] -= 1
            if missing[place.lane] == 0 and self._is_settled(place.step):
                self._filled.notify_all()

    def fail(self, lane: int, error: BaseException) -> None:
        """Nothing more comes from this lane: raise the error where its samples are missed."""
        with self._filled:
            self._errors[lane] = error
            self._filled.notify_all()

    def take(self, step: int) -> list[Bodies]:
        """All samples of a step, when they are there. Raises ClosedError, or the error of a lane."""
        with self._filled:
            self._filled.wait_for(lambda: self._closed or self._is_settled(step))
            if self._closed:
                raise ClosedError
            for lane, missing in self._missing_of(step).items():
                if missing:
                    raise self._errors[lane]
            del self._missing[step]
            self._taken.add(step)
            while self._oldest in self._taken:
                self._taken.remove(self._oldest)
                self._oldest += 1
            self._room.notify_all()
            held = self._held.pop(step)
            return [held[column] for column in range(len(self._lanes))]

    def close(self) -> None:
        """Wake up and turn away whoever waits here."""
        with self._room:
            self._closed = True
            self._held.clear()
            self._room.notify_all()
            self._filled.notify_all()

    def _is_settled(self, step: int) -> bool:
        return all(not missing or lane in self._errors for lane, missing in self._missing_of(step).items())

    def _missing_of(self, step: int) -> dict[int, int]:
        """How many samples of a step are still to come from each lane."""
        if step not in self._missing:
            lanes = set(self._lanes)
            self._missing[step] = {lane: self._lanes.count(lane) for lane in lanes}
        return self._missing[step]


class StreamFeed:
    """The bodies of this rank's samples of the steps start_step..end_step-1, while it is entered.

    rows_N, num_bodies_N: int64, the samples to choose from, each row once. Positions are places in them.
    batch_size, rank, world: as in `order.batch_indices`.  buffer: samples in all ranks' shuffle buffers.
    read_ahead: batches that are held beside the buffer; in every lane, at least READ_AHEAD_SAMPLES samples.
    """

    def __init__(
        self,
        source: TarShards,
        rows_N: NDArray[np.int64],
        num_bodies_N: NDArray[np.int64],
        *,
        batch_size: int,
        seed: int,
        start_step: int,
        end_step: int,
        rank: int,
        world: int,
        buffer: int,
        read_ahead: int,
    ) -> None:
        self._source = source
        self._location = source.location.reopened()
        self._by_row_N = np.argsort(rows_N, kind="stable")
        self._rows_N, self._num_bodies_N = rows_N[self._by_row_N], num_bodies_N[self._by_row_N]
        assert np.all(np.diff(self._rows_N) > 0), "a stream gives every row once"
        self._steps_in_epoch = steps_per_epoch(len(rows_N), batch_size)
        self._start_step, self._end_step = start_step, end_step
        part = min(batch_size, len(rows_N)) // world
        self._columns = slice(rank * part, (rank + 1) * part)
        tars_N = self._rows_N // source.shard_samples
        # Two: around the end of an epoch both orders are in use.
        self._order = lru_cache(maxsize=2)(
            lambda epoch: stream_order(tars_N, batch_size, seed, epoch, buffer)
        )
        order = self._order(start_step // self._steps_in_epoch)
        lanes = len(order.bounds_L) - 1
        self._width = order.lane_width
        self._buffer = max(1, buffer // lanes)
        self._read_ahead = max(READ_AHEAD_SAMPLES, self._width * read_ahead)
        columns = np.arange(order.given_SN.shape[1])[self._columns]
        self._lane_of_column = (columns // self._width).tolist()
        self._shelf = Shelf(self._lane_of_column, start_step)
        self._readers = [
            threading.Thread(target=self._read, args=(lane,), name=f"cpstn-loader-lane-{lane}", daemon=True)
            for lane in sorted(set(self._lane_of_column))
        ]

    def positions(self, step: int) -> NDArray[np.int64]:
        """Which samples a step takes: int64 positions."""
        epoch, step_in_epoch = divmod(step, self._steps_in_epoch)
        order = self._order(epoch)
        return self._by_row_N[order.read_N[order.given_SN[step_in_epoch, self._columns]]]

    def read(self, step: int, out_PCTV: Bodies) -> None:
        """Copy the bodies of a step's samples, packed, when they are there; once for every step.

        Raises what a reader met if it could not bring them: DamagedError, OSError.
        """
        np.concatenate(self._shelf.take(step), out=out_PCTV)

    def __enter__(self) -> Self:
        try:
            for reader in self._readers:
                reader.start()
        except BaseException:
            self._stop()  # after a Ctrl-C in between the block is not entered, and nobody else would
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        """End the readers. One that hangs in finding a server is left to end by itself."""
        if sys.is_finalizing():
            return  # no other thread runs any more, and one may have stopped with the lock in hand
        self._shelf.close()
        self._location.close()
        for reader in self._readers:
            if reader.ident is not None:  # it was started
                reader.join(JOIN_SECONDS)

    def _read(self, lane: int) -> None:
        """One thread: bring the samples of a lane, epoch after epoch."""
        try:
            first, last = (
                self._start_step // self._steps_in_epoch,
                (self._end_step - 1) // self._steps_in_epoch,
            )
            for epoch in range(first, last + 1):
                self._read_epoch(lane, epoch)
        except ClosedError:
            return
        except BaseException as error:  # whatever it is, it belongs to the one who waits for the samples
            self._shelf.fail(lane, error)

    def _read_epoch(self, lane: int, epoch: int) -> None:
        order = self._order(epoch)
        places = list(self._places(order, lane, epoch))
        for shard, of_shard in groupby(places, key=lambda found: found[0] // self._source.shard_samples):
            wanted = {row: (bodies, place) for row, bodies, place in of_shard}
            num_bodies = {row: bodies for row, (bodies, _) in wanted.items()}
            for row, bodies_BCTV in self._source.read_shard(shard, num_bodies, self._location):
                self._shelf.put(wanted[row][1], bodies_BCTV)

    def _places(self, order: StreamOrder, lane: int, epoch: int) -> Iterator[tuple[int, int, Place]]:
        """(row, bodies, place) of what is still to be read of one lane's epoch, in the order of reading."""
        first_step = epoch * self._steps_in_epoch
        columns = [column for column, of in enumerate(self._lane_of_column) if of == lane]
        given_SN = order.given_SN[:, self._columns][:, columns]
        steps = range(max(first_step, self._start_step), min(first_step + len(given_SN), self._end_step))
        given_SN = given_SN[steps.start - first_step : steps.stop - first_step]
        for place in np.argsort(given_SN, axis=None).tolist():
            step, column = divmod(place, len(columns))
            read_at = int(given_SN[step, column])
            position = order.read_N[read_at]
            # The lane has given `width` samples in every step before the oldest that is not yet taken. What
            # is read before they leave the buffer is read ahead.
            ahead = read_at - int(order.bounds_L[lane]) + 1 - self._buffer
            earliest = first_step - ((self._read_ahead - ahead) // self._width)
            relaxed = first_step - ((self._read_ahead // 2 - ahead) // self._width)
            yield (
                int(self._rows_N[position]),
                int(self._num_bodies_N[position]),
                Place(steps.start + step, columns[column], lane, earliest, relaxed),
            )
