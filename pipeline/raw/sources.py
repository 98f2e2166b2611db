"""Finding recordings: in folders, searched deep, and in zip archives, read without unpacking."""

import functools
import os
import re
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_specs.spec import DatasetSpec, built_in_names, load_spec
from pipeline.raw.ntu import parse_ntu
from pipeline.raw.sequence import RecordingError, Sequence
from pipeline.raw.ucla import parse_ucla_json, parse_ucla_text

SUFFIX = {"ntu": ".skeleton", "ucla": ".json"}
UCLA_FRAME = re.compile(r"frame_(\d+)(?:_tc_\d+)?_skeletons\.txt", re.IGNORECASE)
UCLA_VIEW = re.compile(r"view_?(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Recording:
    """Where one recording lies: one file, or one file a frame, on disk or inside a zip archive.

    files: paths, inside `archive` if there is one; in frame order where each holds one frame.
    size: bytes of all files together, uncompressed.
    """

    key: str
    files: tuple[str, ...]
    size: int
    archive: str | None = None

    @property
    def path(self) -> str:
        """What to call it in a message: the file, or the folder that holds its frames."""
        inner = self.files[0] if len(self.files) == 1 else str(Path(self.files[0]).parent)
        return f"{self.archive}/{inner}" if self.archive else inner

    def read(self) -> list[bytes]:
        """The bytes of every file. Raises RecordingError if one cannot be read or fails its zip checksum."""
        try:
            if self.archive is None:
                return [Path(file).read_bytes() for file in self.files]
            archive = _open_archive(self.archive)
            return [archive.read(file) for file in self.files]
        except (
            OSError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
            RuntimeError,
            NotImplementedError,
        ) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise RecordingError(self.path, 0, f"cannot be read: {reason}") from error


@dataclass
class Scan:
    """What a search found.

    recordings: by key, of the wanted data set.  foreign: recordings' paths whose names the data set does not
    have.  duplicates: paths of recordings that were found before under another path and are not used.
    """

    recordings: dict[str, Recording] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)


def scan(raw: list[Path], spec: DatasetSpec) -> Scan:
    """Search files, folders and zip archives for the recordings of one data set, in a fixed order.

    Raises ValueError if a path does not exist, an archive is damaged, or nothing fits the data set.
    """
    found = Scan()
    files_seen = 0
    frames: dict[tuple[str | None, str], list[tuple[int, str, int]]] = {}
    for archive, file, size in _walk(raw):
        files_seen += 1
        name = os.path.basename(file)  # noqa: PTH119 (a hundred thousand Path objects cost a second)
        stem, suffix = os.path.splitext(name)  # noqa: PTH122
        if suffix == SUFFIX[spec.reader]:
            _add(found, spec, Recording(stem, (file,), size, archive))
        elif spec.reader == "ucla" and (match := UCLA_FRAME.fullmatch(name)):
            folder = file[: -len(name)].rstrip("/")
            frames.setdefault((archive, folder), []).append((int(match[1]), file, size))
    for (archive, folder), entries in frames.items():
        entries.sort()
        files = tuple(file for _, file, _ in entries)
        _add(found, spec, Recording(_ucla_key(folder), files, sum(size for *_, size in entries), archive))
    if not found.recordings:
        raise ValueError(_nothing_found(raw, spec, found, files_seen))
    return found


def read_sequence(recording: Recording, spec: DatasetSpec) -> Sequence:
    """Read and parse one recording. Raises RecordingError with file, line and reason."""
    contents = recording.read()
    joints = spec.skeleton.num_joints
    if spec.reader == "ntu":
        return parse_ntu(contents[0], recording.path, joints)
    if recording.files[0].endswith(".json"):
        return parse_ucla_json(contents[0], recording.path, joints)
    names = [Path(file).name for file in recording.files]
    return parse_ucla_text(list(zip(names, contents, strict=True)), recording.path, joints)


def _add(found: Scan, spec: DatasetSpec, recording: Recording) -> None:
    if spec.parse_name(recording.key) is None:
        found.foreign.append(recording.path)
    elif recording.key in found.recordings:
        found.duplicates.append(recording.path)
    else:
        found.recordings[recording.key] = recording


def _walk(raw: list[Path]) -> Iterator[tuple[str | None, str, int]]:
    """(archive, file, bytes) of every file, sorted within each of `raw`."""
    for path in raw:
        if path.is_dir():
            for file, size in sorted(_walk_folder(path)):
                if file.endswith(".zip"):
                    yield from _walk_archive(file)
                else:
                    yield None, file, size
        elif path.suffix == ".zip" and path.is_file():
            yield from _walk_archive(str(path))
        elif path.is_file():
            yield None, str(path), path.stat().st_size
        else:
            raise ValueError(f"{path}: no such file or folder; expected the folder or zip of the download")


def _walk_folder(top: Path) -> Iterator[tuple[str, int]]:
    def give_up(error: OSError) -> None:
        raise ValueError(f"{error.filename}: cannot be searched: {error.strerror}")

    entered: set[str] = set()
    for folder, subfolders, files in os.walk(top, followlinks=True, onerror=give_up):
        entered.add(os.path.realpath(folder))
        subfolders[:] = [name for name in subfolders if os.path.realpath(f"{folder}/{name}") not in entered]
        for name in files:
            file = f"{folder}/{name}"
            try:
                yield file, os.stat(file).st_size  # noqa: PTH116
            except FileNotFoundError:  # a link that leads nowhere is not a recording
                continue


def _walk_archive(path: str) -> Iterator[tuple[str, str, int]]:
    for info in sorted(_open_archive(path).infolist(), key=lambda info: info.filename):
        if not info.is_dir() and not info.filename.startswith("__MACOSX/"):
            yield path, info.filename, info.file_size


_archive_lock = threading.Lock()


def _open_archive(path: str) -> zipfile.ZipFile:
    """The archive, opened once per process: reading the list of 56,000 members takes longer than a file."""
    with _archive_lock:
        return _open_archive_once(path)


@functools.lru_cache(maxsize=8)
def _open_archive_once(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"{path}: not a readable zip archive ({reason}); is the download complete?"
        ) from None


def _ucla_key(folder: str) -> str:
    """`.../view_1/a01_s01_e00` -> `a01_s01_e00_v01`."""
    parts = Path(folder).parts
    for part in reversed(parts[:-1]):
        if match := UCLA_VIEW.fullmatch(part):
            return f"{parts[-1]}_v{int(match[1]):02d}"
    return parts[-1] if parts else ""


def _nothing_found(raw: list[Path], spec: DatasetSpec, found: Scan, files_seen: int) -> str:
    where = ", ".join(map(str, raw))
    expected = {
        "ntu": "files such as S001C001P001R001A001.skeleton, or the official zip archives",
        "ucla": "files such as a01_s01_e00_v01.json, or folders view_1/a01_s01_e00 of *_skeletons.txt",
    }[spec.reader]
    if files_seen == 0:
        return f"{where}: empty; {spec.name} needs {expected}"
    if found.foreign:
        names = [Path(path).stem for path in found.foreign[:1000]]
        fitting = [name for name in built_in_names() if any(load_spec(name).parse_name(n) for n in names)]
        hint = f"; they look like {' or '.join(fitting)}" if fitting else ""
        return f"{where}: {len(found.foreign)} recordings, none of {spec.name} (first: {names[0]}){hint}"
    other = "ucla" if spec.reader == "ntu" else "ntu60"
    hint = ""
    if any(_is_recording(file, other) for _, file, _ in _walk(raw)):
        hint = (
            f"; the files look like {'NW-UCLA (ucla)' if other == 'ucla' else 'NTU RGB+D (ntu60 or ntu120)'}"
        )
    return f"{where}: none of {files_seen} files is a recording of {spec.name}, which needs {expected}{hint}"


def _is_recording(file: str, dataset: str) -> bool:
    path = Path(file)
    is_frame = dataset == "ucla" and UCLA_FRAME.fullmatch(path.name) is not None
    return is_frame or load_spec(dataset).parse_name(path.stem) is not None
