"""What stands in an output folder: the plan before, one record per shard, the manifest last.

plan.json           what will be written, and from which settings; its mark stands in every record
records/00000.json  shard 0 is whole: its files, samples and rejected inputs
samples.csv         every sample: key, row, shard, what its name says, captured frames, bodies, and content:
                    a digest of the numbers that were written, equal in samples that are copies of each other
rejects.csv         every input that could not be used: key, file, line, reason
manifest.json       the commit point: without it the folder is unfinished
.lock               empty; held by the one process that writes there
"""

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

from pipeline.code import code_digest
from pipeline.store.damage import REPAIR, DamagedError
from pipeline.store.location import NO_PATH, Folder, Location, locate
from pipeline.store.publish import file_facts, publish_bytes
from pipeline.store.tar_shard import tar_name
from pipeline.store.zarr_shard import shard_path

FORMAT_VERSION = 3
ZARR_FOLDER = "skeletons.zarr"
TAR_FOLDER = "tar"
FIRST_COLUMNS = ("key", "row", "shard", "label")
REJECT_COLUMNS = ("key", "file", "line", "reason")
FORMATS = ("zarr", "webdataset", "both")


@dataclass(frozen=True)
class Plan:
    """Everything that decides the bytes of the output, but for the content of the inputs.

    keys: the sample of every row; rows 0..shard_samples-1 make shard 0, and so on.
    shape: (N, M, C, T, V) of the array.  settings: the normalisation and choice of samples, by name.
    """

    dataset: str
    spec: str
    keys: tuple[str, ...]
    shape: tuple[int, ...]
    shard_samples: int
    format: str
    settings: Mapping[str, Any]

    @property
    def num_shards(self) -> int:
        return -(-len(self.keys) // self.shard_samples)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the whole plan, and the version of this format."""
        # Field by field: dataclasses.asdict would copy every key, a hundred thousand times.
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return hashlib.sha256(_json([FORMAT_VERSION, content])).hexdigest()

    @property
    def mark(self) -> str:
        """What marks all that this plan makes: its digest, and that of the code which decides the numbers.
        The manifest holds the digest alone, as equal numbers need not be made anew."""
        return f"{self.digest} {code_digest()}"

    def summary(self) -> dict[str, Any]:
        """The plan without its keys, for people and for telling two plans apart."""
        return {
            "dataset": self.dataset,
            "format": self.format,
            "recordings": len(self.keys),
            "spec": hashlib.sha256(self.spec.encode()).hexdigest(),
            "shard_samples": self.shard_samples,
            "code": code_digest(),
            **self.settings,
        }


def row_order(keys: Sequence[str]) -> tuple[str, ...]:
    """A fixed permutation of the keys, so that every shard holds a mixture: sorted by their SHA-256."""
    return tuple(sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest()))


def write_plan(folder: Path, plan: Plan) -> None:
    """Claim the folder for this plan."""
    publish_bytes(folder / "plan.json", _json({"mark": plan.mark, **plan.summary()}))


def has_marks(folder: Path) -> bool:
    """Whether some manifest or record, be it of an earlier version, says that shards were made there."""
    for path, keys in (
        (folder / "manifest.json", {"version", "plan", "files"}),
        *((path, {"plan", "inputs", "files"}) for path in sorted(folder.glob("records/*.json"))[:3]),
    ):
        with suppress(OSError, ValueError):
            if keys <= _load(path).keys():
                return True
    return False


def differing_settings(folder: Path, plan: Plan) -> list[str]:
    """How the plan that stands in a folder differs from this one, setting by setting; [] if it does not.

    Raises FileNotFoundError if there is none, ValueError if what is called so is no plan.
    """
    found = _load(folder / "plan.json")
    if not {"dataset", "shard_samples"} <= found.keys():
        raise ValueError(f"{folder}/plan.json: not a plan of shards")
    if found.get("mark") == plan.mark:
        return []
    wanted = json.loads(_json(plan.summary()))
    in_words = {"spec": "spec", "code": "another version of this program"}
    differences = [
        in_words.get(name, f"{name}: {found.get(name)} there, {wanted.get(name)} now")
        for name in sorted((found.keys() | wanted.keys()) - {"mark"})
        if found.get(name) != wanted.get(name)
    ]
    return differences or ["other recordings"]


@dataclass(frozen=True)
class ShardRecord:
    """What became of one shard's recordings.

    plan: the plan's mark.  inputs: digest of the recordings' keys and stamps.
    files: every file's bytes and crc32, by path relative to the output folder.
    samples: key, row, what the name says, captured frames, bodies and content, of each that was written.
    rejects: key, file, line and reason of each that could not be used.  too_short: keys.
    try_again: an input could not be had this time, so the shard is done, but not for good.
    """

    plan: str
    inputs: str
    files: dict[str, dict[str, Any]]
    samples: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    too_short: list[str]
    try_again: bool

    def write(self, folder: Path, shard: int) -> None:
        """Declare the shard done, after its files were published."""
        # In one line: with an indent, Python's own encoder does it, three times as slow and under the lock.
        content = vars(self) | {"digest": _record_digest(vars(self))}
        publish_bytes(folder / record_name(shard), json.dumps(content, ensure_ascii=False).encode())


def record_name(shard: int) -> str:
    return f"records/{shard:05d}.json"


def shard_files(format_: str, shard: int) -> list[str]:
    """Paths, relative to the output folder, of the files that hold one shard."""
    files = {
        "zarr": [f"{ZARR_FOLDER}/{shard_path(shard)}"],
        "webdataset": [f"{TAR_FOLDER}/{tar_name(shard)}"],
    }
    return files["zarr"] + files["webdataset"] if format_ == "both" else files[format_]


def _record_digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _load_record(folder: Path, shard: int, plan: str, inputs: str) -> ShardRecord:
    """The record for the plan of this mark and inputs of this digest.

    Raises OSError if there is none, ValueError if it is not as it was written, or of another run.
    """
    path = folder / record_name(shard)
    content = _load(path)
    if content.pop("digest", None) != _record_digest(content):
        raise ValueError(f"{path}: damaged: it does not match its own digest")
    try:
        record = ShardRecord(**content)
    except TypeError:
        raise ValueError(f"{path}: of another version of this program") from None
    if (record.plan, record.inputs) != (plan, inputs):
        raise ValueError(f"{path}: of another run")
    return record


def shard_is_done(folder: Path, shard: int, plan: str, inputs: str) -> bool:
    """Whether a record says so, for the plan of this mark and inputs of this digest, and its files fit it."""
    try:
        record = _load_record(folder, shard, plan, inputs)
        return not record.try_again and all(
            file_facts(folder / name) == facts for name, facts in record.files.items()
        )
    except (OSError, ValueError):
        return False


def load_records(folder: Path, plan: str, inputs: Sequence[str]) -> list[ShardRecord]:
    """Every shard's record, for the plan of this mark and each shard's inputs of these digests.

    Raises ValueError that names all shards that have none, or one of another run: a task that was cancelled
    may still end.
    """
    records, missing = [], []
    for shard, expected in enumerate(inputs):
        try:
            records.append(_load_record(folder, shard, plan, expected))
        except (OSError, ValueError):
            missing.append(shard)
    if missing:
        raise ValueError(
            f"{folder}: no record of shards {missing} by this run; run preprocess again to finish"
        )
    return records


@dataclass(frozen=True)
class Manifest:
    """A finished output folder.

    samples: how many there are to use; `planned` counts the rows, rejected inputs' empty ones included.
    left_out: how many recordings were not used by reason: "missing" (on the official list), "too_short",
        "foreign" (not of this data set), "duplicate".
    files: every file's bytes and crc32, by path relative to the folder.
    """

    dataset: str
    spec: str
    format: str
    settings: dict[str, Any]
    shape: tuple[int, ...]
    shard_samples: int
    planned: int
    samples: int
    rejected: int
    left_out: dict[str, int]
    files: dict[str, dict[str, Any]]
    plan: str
    version: int = FORMAT_VERSION

    @property
    def bytes(self) -> int:
        """Size on disk of all that it names: samples and tables, without plan, records and itself."""
        return sum(facts["bytes"] for facts in self.files.values())

    @cached_property
    def digest(self) -> str:
        """SHA-256 that names these very samples: equal where equal recordings were taken with equal settings,
        wherever they lay, and whatever other files lay beside them, or duplicates, or samples on the list of
        missing skeletons. (One that cannot be read, or is too short, takes a row all the same.)"""
        content = dataclasses.asdict(self)
        for name in ("left_out", "planned", "plan", "rejected"):
            del content[name]
        content["files"] = {name: found for name, found in self.files.items() if name != "rejects.csv"}
        return hashlib.sha256(_json(content)).hexdigest()

    def write(self, folder: Path) -> None:
        """Commit: from here on the folder counts as finished."""
        content = dataclasses.asdict(self)
        publish_bytes(folder / "manifest.json", _json(content | {"digest": _seal(content)}))


def load_manifest(place: Path | str | Location) -> Manifest:
    """The manifest of a folder, or of an http(s) address.

    Raises ValueError if there are no finished shards, or those of another version; DamagedError if the
    manifest is not as it was written; OSError if a server cannot be reached, or no folder can have that name.
    """
    location = locate(place)
    try:
        raw = _parsed(location.read("manifest.json"), f"{location}/manifest.json")
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise ValueError(_no_manifest(location, error)) from None
    except ValueError as error:
        raise DamagedError(f"{error}; {REPAIR}") from None
    except OSError as error:
        if not isinstance(location, Folder) or error.errno in NO_PATH:
            raise
        raise DamagedError(f"{location}/manifest.json: cannot be read: {error}") from None
    digest = raw.pop("digest", None)
    if raw.get("version") != FORMAT_VERSION:
        raise ValueError(
            f"{location}: shards of version {raw.get('version')}; expected {FORMAT_VERSION}; "
            f"run preprocess again"
        )
    if _seal(raw) != digest:
        raise DamagedError(f"{location}/manifest.json: damaged: it does not match its own digest; {REPAIR}")
    return Manifest(**raw | {"shape": tuple(raw["shape"])})


def _seal(content: dict[str, Any]) -> str:
    """Of everything that a manifest says, by which damage shows."""
    return hashlib.sha256(_json(content)).hexdigest()


def write_tables(folder: Path, shard_samples: int, records: list[ShardRecord]) -> None:
    """samples.csv and rejects.csv from the records of all shards, in order."""
    samples = [
        facts | {"shard": facts["row"] // shard_samples} for record in records for facts in record.samples
    ]
    others = [name for name in samples[0] if name not in FIRST_COLUMNS] if samples else []
    _write_table(folder / "samples.csv", [*FIRST_COLUMNS, *others], samples)
    rejects = [reject for record in records for reject in record.rejects]
    _write_table(folder / "rejects.csv", REJECT_COLUMNS, rejects)


def _write_table(path: Path, columns: Sequence[str], rows: list[dict[str, Any]]) -> None:
    content = io.StringIO(newline="")
    table = csv.writer(content, lineterminator="\n")
    table.writerow(columns)
    table.writerows(map(itemgetter(*columns), rows))
    publish_bytes(path, content.getvalue().encode())


def _no_manifest(location: Location, error: OSError) -> str:
    if not isinstance(location, Folder):
        return f"no shards there: {error}"
    folder = location.path
    if isinstance(error, PermissionError):
        return f"{folder}/manifest.json: cannot be read: {error.strerror}"
    if (folder / "plan.json").is_file():
        return (
            f"{folder}: preprocessing has not finished there; run the same preprocess command again, "
            f"without --strict if that ended it"
        )
    if not folder.exists():
        return f"{folder}: no such folder; expected shards made by preprocess"
    if not folder.is_dir():
        return f"{folder}: a file; expected a folder of shards, made by preprocess"
    return f"{folder}: holds no shards (no manifest.json); expected a folder made by preprocess"


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _load(path: Path) -> dict[str, Any]:
    return _parsed(path.read_bytes(), str(path))


def _parsed(content: bytes, place: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        raise ValueError(f"{place}: damaged: not JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"{place}: damaged: not a JSON object")
    return value
