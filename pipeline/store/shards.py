"""Finished shards, opened: what is in them, which samples a protocol uses, whether every byte is sound."""

import io
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_specs.read import parse_spec
from data_specs.spec import FIELDS, DatasetSpec
from pipeline.store.damage import REPAIR, DamagedError
from pipeline.store.location import Folder, Location, locate
from pipeline.store.manifest import TAR_FOLDER, ZARR_FOLDER, Manifest, load_manifest
from pipeline.store.publish import content_facts, facts_differ
from pipeline.store.tar_shard import CheckedStream, TarShards, read_samples, tar_name
from pipeline.store.zarr_shard import ZarrShards, verify_shard


@dataclass(frozen=True)
class Shards:
    """One finished output of preprocess, in a folder or behind a web server. `open_shards` makes it."""

    location: Location
    manifest: Manifest
    spec: DatasetSpec
    table: pd.DataFrame

    @property
    def folder(self) -> Path:
        """Where on disk. Raises ValueError if they are behind a web server."""
        if not isinstance(self.location, Folder):
            raise ValueError(f"{self.location}: not on this machine's disk; download the shards first")
        return self.location.path

    @cached_property
    def source(self) -> ZarrShards | TarShards:
        """What samples are read from: the zarr array where it lies on disk, else the tars."""
        if self.manifest.format == "webdataset":
            return self.tars
        return (
            self.array if isinstance(self.location, Folder) or self.manifest.format == "zarr" else self.tars
        )

    @cached_property
    def array(self) -> ZarrShards:
        """The zarr array of all rows; what is read is compared with its checksum.

        Raises ValueError if only webdataset shards were written, or they are behind a web server.
        """
        if self.manifest.format == "webdataset":
            raise ValueError(
                f"{self.location}: holds webdataset shards only; run preprocess with --format zarr or both"
            )
        if not isinstance(self.location, Folder):
            raise ValueError(
                f"{self.location}: zarr shards are read from disk; serve ones made with --format webdataset"
            )
        prefix = f"{ZARR_FOLDER}/"
        sizes = {
            name.removeprefix(prefix): facts["bytes"]
            for name, facts in self.manifest.files.items()
            if name.startswith(prefix)
        }
        return ZarrShards(self.folder / ZARR_FOLDER, verify=True, sizes=sizes)

    @cached_property
    def tars(self) -> TarShards:
        """The webdataset shards; what is read is compared with the manifest.

        Raises ValueError if only zarr shards were written.
        """
        if self.manifest.format == "zarr":
            raise ValueError(
                f"{self.location}: holds no webdataset shards; run preprocess with --format both"
            )
        keys: dict[int, dict[int, str]] = {}
        for row, key in sorted(zip(self.table["row"].tolist(), self.table["key"].tolist(), strict=True)):
            keys.setdefault(row // self.manifest.shard_samples, {})[row] = key
        names = {shard: f"{TAR_FOLDER}/{tar_name(shard)}" for shard in keys}
        try:
            files = {shard: (name, self.manifest.files[name]) for shard, name in names.items()}
        except KeyError as error:
            raise DamagedError(f"{self.location}/samples.csv: {error} is not in the manifest") from None
        samples, bodies, channels, frames, joints = self.manifest.shape
        shape = (samples, bodies, channels, frames, joints)
        return TarShards(self.location, files, shape, self.manifest.shard_samples, keys)

    def split(self, protocol: str, part: str) -> pd.DataFrame:
        """The table's rows that a protocol trains on ("train") or tests on ("test"), in row order.

        Raises ValueError if there is no such protocol, or it holds out what is not there.
        """
        parts = self._parts(protocol)
        return self.table[parts == part]

    def copied(self, protocol: str) -> NDArray[np.bool_]:
        """Which of a protocol's test samples hold the very numbers of one that it trains on: bool (N,), in
        row order. Raises ValueError if there is no such protocol."""
        test, train = self.split(protocol, "test"), self.split(protocol, "train")
        return test["content"].isin(train["content"]).to_numpy(bool)

    def _parts(self, protocol: str) -> "pd.Series[Any]":
        chosen = self.spec.protocol(protocol)
        kind_N, kinds = pd.MultiIndex.from_frame(self.table[list(chosen.fields)]).factorize()
        part_of = {kind: chosen.split(dict(zip(chosen.fields, kind, strict=True))) for kind in kinds}
        if chosen.held_out is not None:
            place = chosen.fields.index(chosen.held_out.field)
            tested = {kind[place] for kind, part in part_of.items() if part == "test"}
            for missing in sorted(chosen.held_out.values - tested):
                raise ValueError(
                    f"{self.location}: protocol {protocol} finds no training sample of "
                    f"{chosen.held_out.field} {missing} to hold out in these shards"
                )
        return pd.Series(np.array(list(part_of.values()), object)[kind_N], index=self.table.index)

    def describe(self) -> dict[str, Any]:
        """What `inspect` says, as plain data for JSON."""
        manifest, table = self.manifest, self.table
        rejects = _read_table(self.location, manifest, "rejects.csv", keep_default_na=False)
        protocols = {}
        for name in self.spec.protocols:
            parts = self._parts(name)
            sizes = {part: int((parts == part).sum()) for part in ("train", "test")}
            protocols[name] = sizes | {"copied": int(self.copied(name).sum())}
        return {
            "dataset": manifest.dataset,
            "format": manifest.format,
            "samples": manifest.samples,
            "shards": -(-manifest.planned // manifest.shard_samples),
            "bytes": manifest.bytes,
            "shape": list(manifest.shape),
            "captured_frames": {
                "least": int(table["num_frames"].min()),
                "mean": round(float(table["num_frames"].mean()), 1),
                "most": int(table["num_frames"].max()),
            },
            "bodies": {
                str(n): int(count) for n, count in table["num_bodies"].value_counts().sort_index().items()
            },
            "classes": int(table["label"].nunique()),
            "protocols": protocols,
            "copies": self._count_copies(),
            "rejected": manifest.rejected,
            "rejects_by_reason": reject_kinds(rejects["reason"].tolist()),
            "left_out": manifest.left_out,
            "settings": manifest.settings,
            "digest": manifest.digest,
        }

    def _count_copies(self) -> dict[str, int]:
        """samples: those that hold the very numbers of an earlier one; of_other_class: of another label."""
        again = self.table["content"].duplicated()
        first_label = self.table.groupby("content")["label"].transform("first")
        other = again & (first_label != self.table["label"])
        return {"samples": int(again.sum()), "of_other_class": int(other.sum())}


def open_shards(place: Path | str) -> Shards:
    """The finished shards in a folder or below an http(s) address.

    Raises ValueError if there are none; DamagedError if their table or manifest is not as it was written;
    OSError if the server does not answer.
    """
    location = locate(place)
    manifest = load_manifest(location)
    table = _read_table(location, manifest, "samples.csv", dtype={"key": str, "content": str})
    return Shards(location, manifest, parse_spec(manifest.spec), table)


def performances(table: pd.DataFrame, spec: DatasetSpec) -> list[str]:
    """Of each row of a shards' table what its name says of the performance, which is all but the camera: one
    performance, where the cameras film at once; one number of the same subject and action, where not."""
    named = table[[name for name in FIELDS if name in table.columns]]
    read: list[tuple[int, ...]] = list(
        named.drop(columns="camera", errors="ignore").itertuples(index=False, name=None)
    )
    said = [" ".join(map(str, row)) for row in read]
    if named.duplicated().any():  # the pattern leaves out what tells recordings apart
        said = [f"{row} {spec.unread(key)}" for row, key in zip(said, table["key"], strict=True)]
    return said


def _read_table(location: Location, manifest: Manifest, name: str, **options: Any) -> pd.DataFrame:
    """Raises DamagedError unless it is as it was written; ConnectionError if the server is lost."""
    try:
        content = location.read(name)
    except ConnectionError:
        raise
    except OSError as error:
        raise DamagedError(f"{location}/{name}: cannot be read: {error}") from None
    if content_facts(content) != manifest.files[name]:
        raise DamagedError(f"{location}/{name}: not as it was written; {REPAIR}")
    table: pd.DataFrame = pd.read_csv(io.BytesIO(content), **options)
    return table


def newest_shards(parent: Path) -> Path:
    """The folder below `parent` that was finished last. Raises ValueError if there is none."""
    manifests = sorted(parent.glob("*/manifest.json"), key=lambda path: (path.stat().st_mtime_ns, path))
    if not manifests:
        raise ValueError(f"no finished shards under {parent}/; run preprocess first, or name a folder")
    return manifests[-1].parent


def verify_shards(place: Path | str) -> dict[str, list[str]]:
    """Re-read every byte: {file: problems} of the damaged ones, {} if all is as it was written.

    Errors as `load_manifest`: without the manifest there is nothing to compare with. ConnectionError if the
    server is lost underway.
    """
    problems: dict[str, list[str]] = {}
    location = locate(place)
    manifest = load_manifest(location)
    for name, expected in manifest.files.items():
        try:
            with closing(location.open(name)) as stream:
                found = CheckedStream(stream).facts()
        except ConnectionError:
            raise
        except OSError as error:
            problems[name] = [error.strerror or str(error)]
            continue
        if found != expected:
            problems[name] = [facts_differ(found, expected), *_inside(manifest, location, name)]
    return problems


def _inside(manifest: Manifest, location: Location, name: str) -> list[str]:
    """Which samples of a damaged shard file are hit."""
    _, max_bodies, channels, frames, joints = manifest.shape
    if name.startswith(f"{ZARR_FOLDER}/c/") and isinstance(location, Folder):
        path = location.path / name
        return verify_shard(path, channels * frames * joints * 4, max_bodies, manifest.shard_samples)
    if name.startswith(f"{TAR_FOLDER}/"):
        try:
            with closing(location.open(name)) as stream:
                for _ in read_samples(f"{location}/{name}", stream):
                    pass
        except ValueError as error:
            return [str(error)]
    return []


def reject_kinds(reasons: list[str]) -> dict[str, int]:
    """How often each kind of reason occurs, most often first. Reasons that differ by their numbers alone are
    one kind, in which these are "…"."""
    texts = pd.Series(reasons, dtype="str")
    kinds = {}
    for kind, alike in texts.groupby(texts.str.replace(r"\d+", "…", regex=True)):
        kinds[str(kind) if alike.nunique() > 1 else str(alike.iloc[0])] = len(alike)
    return dict(sorted(kinds.items(), key=lambda entry: -entry[1]))
