"""Arrays on disk under a digest of everything that they depend on, so that what lies there is right or not
found. A damaged file is as good as none."""

import errno
import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.samples import Samples
from pipeline.store.publish import published

# Of a run in which we may not write: then the next evaluation does it again.
NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Kept:
    """FOLDER/NAME-DIGEST.npz. identity: what all of the folder's files depend on, plain data for JSON."""

    folder: Path
    identity: Mapping[str, Any]

    def read(self, name: str, facts: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The arrays that were written under these; none if there is no such file, or it is not whole."""
        try:
            with self._path(name, facts).open("rb") as file, np.load(file, allow_pickle=False) as content:
                return dict(content)
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return {}

    def write(self, name: str, facts: Mapping[str, Any], **arrays: NDArray[Any]) -> None:
        """In a folder that is not ours nothing is written.

        name: what the file begins with; to be among the facts where it decides what the arrays are.
        """
        try:
            with published(self._path(name, facts)) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        except OSError as error:
            if error.errno not in NOT_OURS:
                raise

    def _path(self, name: str, facts: Mapping[str, Any]) -> Path:
        whole = json.dumps({"of": self.identity, **facts}, sort_keys=True)
        digest = hashlib.sha256(whole.encode()).hexdigest()
        return self.folder / f"{re.sub(r'[^a-z]+', '-', name.lower())}-{digest[:16]}.npz"


def digest_of_rows(samples: Samples) -> str:
    """Of which samples of their shards these are, and in which order."""
    return hashlib.sha256(samples.rows_N.tobytes()).hexdigest()
