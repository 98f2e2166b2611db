"""What the benchmarks work on: real recordings where they are at hand, synthesized ones otherwise.

Axes: N sample, B present body, M body slot, C coordinate, T frame, V joint.
"""

import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from data_specs.read import load_spec
from data_specs.spec import DatasetSpec
from pipeline.normalize import NormalizeConfig, UnusableError, normalize
from pipeline.preprocess import PreprocessConfig, prepare, run
from pipeline.raw.sequence import RecordingError
from pipeline.raw.sources import Recording, Scan, read_sequence, scan
from pipeline.raw.synthetic import synthesize
from pipeline.store.shards import Shards, open_shards

# Its names include those of NTU RGB+D 60.
SPEC: DatasetSpec = load_spec("ntu120")
REAL_ARCHIVE = Path(__file__).parents[2] / "shared" / "data" / "ntu60-subset.tar.xz"
SYNTHESIZED, SYNTHESIZED_QUICK = 400, 12
WHOLE_NTU_120 = 113_945
TWO_BODIES = 0.18
AS_USUAL = NormalizeConfig()


@dataclass(frozen=True)
class Recordings:
    """.skeleton files.  origin: how a report calls them.  are_real: the bars on sizes are for real ones."""

    folder: Path
    files: tuple[Path, ...]
    origin: str
    are_real: bool

    def spread(self, count: int) -> tuple[Path, ...]:
        """At most so many of the files, evenly spread over all of them."""
        chosen = np.linspace(0, len(self.files) - 1, min(count, len(self.files)), dtype=np.int64)
        return tuple(self.files[index] for index in np.unique(chosen))


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder that is gone afterwards; TMPDIR says where."""
    with tempfile.TemporaryDirectory(prefix="cpstn-benchmark-") as folder:
        yield Path(folder)


def find_recordings(raw: Path | None, scratch: Path, *, quick: bool) -> Recordings:
    """Links to what is usable in `raw`; without it the real files beside the project or, also if `quick`,
    synthesized ones.

    Raises click.BadParameter if nothing in `raw` is usable, ValueError if nothing is NTU's.
    """
    if raw is not None:
        return _usable(raw, scratch / "usable")
    folder = scratch / "raw"
    if REAL_ARCHIVE.is_file() and not quick:
        with tarfile.open(REAL_ARCHIVE) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and newer
            archive.extractall(folder)
        return _recordings(folder, "real NTU RGB+D 60 recordings", are_real=True)
    synthesize(SPEC, folder, SYNTHESIZED_QUICK if quick else SYNTHESIZED)
    return _recordings(folder, "synthesized NTU recordings", are_real=False)


def _usable(raw: Path, links: Path) -> Recordings:
    """Benchmarks read whatever they are given: what `preprocess` would not make a sample of gets no link."""
    found = scan([raw], SPEC)
    usable = [recording for recording, _ in _samples(found, AS_USUAL)]
    total = len(found.recordings) + len(found.foreign) + len(found.duplicates)
    zipped = sum(recording.archive is not None for recording in found.recordings.values())
    if not usable and zipped:
        raise click.BadParameter(f"{raw}: {zipped:,} recordings are in zip archives; unpack them first")
    if not usable:
        raise click.BadParameter(
            f"{raw}: none of {total:,} recordings can be used; "
            f"`python cli.py preprocess {SPEC.name} {raw}` says why"
        )
    links.mkdir()
    for recording in usable:
        (links / f"{recording.key}.skeleton").symlink_to(recording.files[0])
    left_out = f" ({total - len(usable):,} left out)" if len(usable) < total else ""
    return _recordings(links, f"recordings in {raw.name}{left_out}", are_real=True)


def _recordings(folder: Path, what: str, *, are_real: bool) -> Recordings:
    files = tuple(sorted(folder.rglob("*.skeleton")))
    return Recordings(folder, files, f"{len(files):,} {what}", are_real)


def normalized_samples(
    recordings: Recordings, config: NormalizeConfig = AS_USUAL
) -> dict[Path, NDArray[np.float32]]:
    """Every usable recording's sample, float32 (B, C, T, V) metres, 1 <= B <= 2, as `preprocess` makes them.

    Those on the list of missing skeletons are left out.
    """
    found = scan([recordings.folder], SPEC)
    return {Path(recording.files[0]): bodies_BCTV for recording, bodies_BCTV in _samples(found, config)}


def _samples(found: Scan, config: NormalizeConfig) -> Iterator[tuple[Recording, NDArray[np.float32]]]:
    for key, recording in found.recordings.items():
        if key in SPEC.missing or recording.archive:
            continue
        try:
            if b"#" in recording.read()[0]:  # a comment: those that ours is compared with know none
                continue
            sequence = read_sequence(recording, SPEC)
            bodies_BCTV = normalize(sequence, SPEC.skeleton, config, SPEC.fps)
        except (RecordingError, UnusableError):
            continue
        yield recording, bodies_BCTV


def mixture(samples: Mapping[Path, NDArray[np.float32]], count: int) -> list[Path]:
    """`count` of these files in a shuffled order, 18% with two bodies as in the whole of NTU RGB+D 60.

    Few files come again and again; where all have as many bodies, so has the mixture. Always the same.
    """
    random = np.random.default_rng(0)
    kinds = [[file for file in samples if len(samples[file]) == bodies] for bodies in (1, 2)]
    shares = [round(count * (1 - TWO_BODIES)), round(count * TWO_BODIES)]
    if not all(kinds):
        kinds, shares = [list(samples)], [count]
    chosen = []
    for files, share in zip(kinds, shares, strict=True):
        turns = [random.permutation(len(files)) for _ in range(-(-share // len(files)))]
        chosen += [files[index] for index in np.concatenate(turns)[:share]]
    return [chosen[index] for index in random.permutation(count)]


def mixed_samples(
    recordings: Recordings, count: int, config: NormalizeConfig = AS_USUAL
) -> list[NDArray[np.float32]]:
    """The samples of such a mixture."""
    samples = normalized_samples(recordings, config)
    return [samples[file] for file in mixture(samples, count)]


def names_of_ntus_form() -> Iterator[str]:
    """File names of NTU RGB+D 120's form, none of a missing skeleton: of ten subjects, 230,309. The data set
    itself has recordings of a tenth of them."""
    ranges = (range(1, last + 1) for last in (2, 10, 32, 3, 120))
    for replication, subject, setup, camera, action in product(*ranges):
        key = f"S{setup:03d}C{camera:03d}P{subject:03d}R{replication:03d}A{action:03d}"
        if key not in SPEC.missing:
            yield f"{key}.skeleton"


def mixed_shards(recordings: Recordings, scratch: Path, count: int, shard_samples: int) -> Shards:
    """Such a mixture under names of its own, preprocessed to zarr and webdataset shards.

    All of them are training samples of protocol "xsub".
    """
    links = scratch / "mixture"
    links.mkdir()
    for file, name in zip(mixture(normalized_samples(recordings), count), names_of_ntus_form(), strict=False):
        (links / name).symlink_to(file.resolve())
    config = PreprocessConfig(format="both", shard_samples=shard_samples)
    run(prepare(SPEC, [links], scratch / "shards", config, overwrite=False), workers=1)
    return open_shards(scratch / "shards")


def dense(samples: Sequence[NDArray[np.float32]], max_bodies: int = 2) -> NDArray[np.float32]:
    """(N, M, C, T, V), zeros where a body is absent: what a plain array of the samples is."""
    out_NMCTV = np.zeros((len(samples), max_bodies, *samples[0].shape[1:]), np.float32)
    for row, bodies_BCTV in enumerate(samples):
        out_NMCTV[row, : len(bodies_BCTV)] = bodies_BCTV
    return out_NMCTV
