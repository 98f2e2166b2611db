"""Tars, looked into."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.store.location import file_stream
from pipeline.store.tar_shard import read_samples


def read_tar(path: Path) -> Iterator[tuple[str, NDArray[np.float32], dict[str, object]]]:
    """As `read_samples`, of a file."""
    with closing(file_stream(path)) as stream:
        yield from read_samples(str(path), stream)
