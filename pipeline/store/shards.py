"""Finished shards, opened: what is in them, which samples a protocol uses, whether every byte is sound."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from data_specs.spec import DatasetSpec, parse_spec
from pipeline.store.damage import DamagedError
from pipeline.store.manifest import TAR_FOLDER, ZARR_FOLDER, Manifest, load_manifest
from pipeline.store.publish import file_facts
from pipeline.store.tar_shard import read_tar
from pipeline.store.zarr_shard import ZarrShards, verify_shard


@dataclass(frozen=True)
class Shards:
    """One finished output folder of preprocess. `open_shards` makes it."""

    folder: Path
    manifest: Manifest
    spec: DatasetSpec
    table: pd.DataFrame

    @cached_property
    def array(self) -> ZarrShards:
        """The zarr array of all rows; what is read is compared with its checksum.

        Raises ValueError if only webdataset shards were written.
        """
        if self.manifest.format == "webdataset":
            raise ValueError(
                f"{self.folder}: holds webdataset shards only; run preprocess with --format zarr or both"
            )
        return ZarrShards(self.folder / ZARR_FOLDER, verify=True)

    def split(self, protocol: str, part: str) -> pd.DataFrame:
        """The table's rows that a protocol trains on ("train") or tests on ("test"), in row order.

        Raises ValueError if there is no such protocol.
        """
        parts = self._parts(protocol)
        return self.table[parts == part]

    def _parts(self, protocol: str) -> "pd.Series[Any]":
        chosen = self.spec.protocol(protocol)
        parts = self.table[chosen.field].map(lambda value: chosen.split({chosen.field: value}))
        return parts.astype("object")

    def describe(self) -> dict[str, Any]:
        """What `inspect` says, as plain data for JSON."""
        manifest, table = self.manifest, self.table
        rejects = pd.read_csv(self.folder / "rejects.csv", keep_default_na=False)
        protocols = {}
        for name in self.spec.protocols:
            parts = self._parts(name)
            protocols[name] = {part: int((parts == part).sum()) for part in ("train", "test")}
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
            "rejected": manifest.rejected,
            "rejects_by_reason": reject_kinds(rejects["reason"].tolist()),
            "left_out": manifest.left_out,
            "settings": manifest.settings,
            "digest": manifest.digest,
        }


def open_shards(folder: Path) -> Shards:
    """Raises ValueError if the folder holds no finished shards; DamagedError if its table or manifest is not
    as it was written."""
    manifest = load_manifest(folder)
    try:
        table = pd.read_csv(folder / "samples.csv", dtype={"key": str})
    except (OSError, ValueError) as error:
        raise DamagedError(f"{folder}/samples.csv: cannot be read: {error}") from None
    if len(table) != manifest.samples:
        raise DamagedError(
            f"{folder}/samples.csv: {len(table)} samples where the manifest says {manifest.samples}; "
            f"verify tells what is damaged"
        )
    return Shards(folder, manifest, parse_spec(manifest.spec), table)


def newest_shards(parent: Path) -> Path:
    """The folder below `parent` that was finished last. Raises ValueError if there is none."""
    manifests = sorted(parent.glob("*/manifest.json"), key=lambda path: (path.stat().st_mtime_ns, path))
    if not manifests:
        raise ValueError(f"no finished shards under {parent}/; run preprocess first, or name a folder")
    return manifests[-1].parent


def verify_shards(folder: Path) -> dict[str, list[str]]:
    """Re-read every byte: {file: problems} of the damaged ones, {} if all is as it was written.

    Errors as `load_manifest`: without the manifest there is nothing to compare with.
    """
    problems: dict[str, list[str]] = {}
    manifest = load_manifest(folder)
    for name, expected in manifest.files.items():
        path = folder / name
        try:
            found = file_facts(path)
        except OSError as error:
            problems[name] = [error.strerror or str(error)]
            continue
        if found != expected:
            problems[name] = [
                f"{found['bytes']} bytes, crc32c {found['crc32c']}, where "
                f"{expected['bytes']} bytes, crc32c {expected['crc32c']} were written",
                *_inside(manifest, folder / name, name),
            ]
    return problems


def _inside(manifest: Manifest, path: Path, name: str) -> list[str]:
    """Which samples of a damaged shard file are hit."""
    _, max_bodies, channels, frames, joints = manifest.shape
    if name.startswith(f"{ZARR_FOLDER}/c/"):
        return verify_shard(path, channels * frames * joints * 4, max_bodies, manifest.shard_samples)
    if name.startswith(f"{TAR_FOLDER}/"):
        try:
            for _ in read_tar(path):
                pass
        except ValueError as error:
            return [str(error)]
    return []


def reject_kinds(reasons: list[str]) -> dict[str, int]:
    """How often each kind of reason occurs; numbers are taken out, so that like reasons count together."""
    kinds = pd.Series(reasons, dtype="str").str.replace(r"\d+", "N", regex=True)
    return {str(kind): int(count) for kind, count in kinds.value_counts().items()}
