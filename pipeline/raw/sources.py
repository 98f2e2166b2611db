"""Finding recordings: in folders, searched deep, and in zip archives, read without unpacking."""

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data_specs.read import built_in_names, load_spec
from data_specs.spec import DatasetSpec
from pipeline.raw.archive import Member, list_members, read_member
from pipeline.raw.ntu import parse_ntu
from pipeline.raw.sequence import RecordingError, Sequence
from pipeline.raw.ucla import parse_ucla_json, parse_ucla_text

UNREADABLE = (OSError, NotImplementedError, zipfile.BadZipFile, zlib.error)
UNKNOWN = (-1, 0)  # the stamp of a file that could not be asked for one
MAX_FRAMES = 100_000  # over an hour of recording
SUFFIX = {"ntu": ".skeleton", "ucla": ".json"}
# A zip that comes up as a file lies inside another one.
UNSEARCHED = (".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst")
UCLA_FRAME = re.compile(r"frame_(\d+)(?:_tc_\d+)?_skeletons\.txt", re.IGNORECASE)
# Ends of lines and the like: a table of samples would be another one.
CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
UCLA_VIEW = re.compile(r"view_?(\d+)", re.IGNORECASE)


class Recording(NamedTuple):
    """Where one recording lies: one file, or one file a frame, on disk or inside a zip archive.

    A tuple, for there are a hundred thousand, and they are sent to other processes.

    key: its name, which the spec reads: the file's without suffix, or made from the folders of its frames.
    path: what to call it in messages, relative to the folder that was searched.
    files: absolute paths, or names inside `archive`; in frame order where each holds one frame.
    members: where each file lies in `archive`, if there is one.
    frames: the number of the frame that each file holds; () where one file holds all.
    stamp: changes when the content may have: sizes, and times of change or zip checksums.
    archive: the absolute path of the zip archive that holds the files; None where they lie on disk.
    """

    key: str
    path: str
    files: tuple[str, ...]
    stamp: tuple[int, ...]
    archive: str | None = None
    members: tuple[Member, ...] = ()
    frames: tuple[int, ...] = ()

    def read(self) -> list[bytes]:
        """The bytes of every file. Raises InaccessibleError if one cannot be read or fails its checksum."""
        try:
            if self.archive is None:
                return [_content(file) for file in self.files]
            return [read_member(self.archive, member) for member in self.members]
        except UNREADABLE as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise InaccessibleError(self.path, 0, f"cannot be read: {reason}") from error


def _content(file: str) -> bytes:
    """A file, by as few system calls as can be: after each, a thread queues for the interpreter again."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        content = os.read(descriptor, size)
        while len(content) < size and (more := os.read(descriptor, size - len(content))):
            content += more
        return content
    finally:
        os.close(descriptor)


class InaccessibleError(RecordingError):
    """The bytes could not be had this time: another try may succeed."""


@dataclass
class Scan:
    """What a search found.

    recordings: by key, of the wanted data set.  foreign: recordings' paths whose names the data set does not
    have.  without_class: those of them whose names fit, but for an action that the data set has no class for,
    by its number.  not_text: those whose names fit and are not UTF-8, or hold control characters.
    duplicates: paths of recordings that were found before under another path and are not used.
    archives: paths of those that are not searched.
    """

    recordings: dict[str, Recording] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    without_class: dict[int, list[str]] = field(default_factory=dict)
    not_text: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)


class _File(NamedTuple):
    """A file that a search came past.

    path: absolute, or the name inside `archive`.  shown: relative to the searched folder, as text.
    stamp, archive: as a Recording's.  member: where it lies in `archive`, if there is one.
    """

    path: str
    shown: str
    stamp: tuple[int, int]
    archive: str | None = None
    member: Member | None = None

    @property
    def members(self) -> tuple[Member, ...]:
        return (self.member,) if self.member else ()


def scan(raw: list[Path], spec: DatasetSpec, skip: Path | None = None) -> Scan:
    """Search files, folders and zip archives for the recordings of one data set, in a fixed order.

    skip: a folder that is not searched.
    Raises ValueError if a path does not exist, an archive is damaged, or nothing fits the data set.
    """
    found = Scan()
    files_seen = 0
    frames: dict[tuple[str | None, str], list[tuple[int, _File]]] = {}
    for file in _walk(raw, skip):
        files_seen += 1
        name = os.path.basename(file.path)  # noqa: PTH119 (a hundred thousand Path objects cost a second)
        stem, suffix = os.path.splitext(name)  # noqa: PTH122
        if suffix.lower() == SUFFIX[spec.reader]:
            recording = Recording(stem, file.shown, (file.path,), file.stamp, file.archive, file.members)
            _add(found, spec, recording)
        elif spec.reader == "ucla" and (match := UCLA_FRAME.fullmatch(name)):
            folder = os.path.dirname(file.path)  # noqa: PTH120
            frames.setdefault((file.archive, folder), []).append((int(match[1]), file))
        elif name.lower().endswith(UNSEARCHED):
            found.archives.append(file.shown)
    for (archive, folder), entries in frames.items():
        entries.sort(key=lambda entry: entry[0])
        recording = Recording(
            key=_ucla_key(folder),
            path=os.path.dirname(entries[0][1].shown),  # noqa: PTH120
            files=tuple(file.path for _, file in entries),
            stamp=tuple(number for _, file in entries for number in file.stamp),
            archive=archive,
            members=tuple(member for _, file in entries for member in file.members),
            frames=tuple(number for number, _ in entries),
        )
        _add(found, spec, recording)
    if not found.recordings:
        raise ValueError(_nothing_found(raw, spec, found, files_seen))
    return found


def notes(found: Scan, spec: DatasetSpec) -> list[str]:
    """What was passed by that the user may want, each with the first path that it is about."""
    told = _passed_by(found, spec)
    known = {path for paths in (*found.without_class.values(), found.not_text) for path in paths}
    others = [path for path in found.foreign if path not in known]
    if others:
        told.append(
            f"recordings not named as those of {spec.name}, left out: {len(others):,} (first: {others[0]})"
        )
    return told


def _passed_by(found: Scan, spec: DatasetSpec) -> list[str]:
    """Those of the notes that say why, where nothing at all was found."""
    told = []
    if found.without_class:
        count = sum(map(len, found.without_class.values()))
        actions = sorted(found.without_class)
        shown = ", ".join(map(str, actions[:3])) + (f" to {actions[-1]}" if len(actions) > 3 else "")
        told.append(
            f"recordings of action {shown}, for which {spec.name} has no class, left out: {count:,} "
            f"(first: {found.without_class[actions[0]][0]})"
        )
    if found.not_text:
        told.append(
            f"recordings whose names are no plain text, left out: {len(found.not_text):,} "
            f"(first: {found.not_text[0]}); rename them"
        )
    if found.archives:
        told.append(
            f"archives not searched, as they are no zip or lie in one: {len(found.archives):,} "
            f"(first: {found.archives[0]}); unpack them first if they hold recordings"
        )
    return told


def read_sequence(recording: Recording, spec: DatasetSpec) -> Sequence:
    """Read and parse one recording. Raises RecordingError with file, line and reason."""
    contents = recording.read()
    joints = spec.skeleton.num_joints
    if spec.reader == "ntu":
        return parse_ntu(contents[0], recording.path, joints)
    if not recording.frames:
        return parse_ucla_json(contents[0], recording.path, joints)
    return parse_ucla_text(_with_absent_frames(recording, contents), recording.path, joints)


def _with_absent_frames(recording: Recording, contents: list[bytes]) -> list[tuple[str, bytes]]:
    """(file name, bytes) of every frame from the first to the last number; b"" for one without a file.

    Raises RecordingError if the numbers are too far apart, or two files have the same.
    """
    first, last = recording.frames[0], recording.frames[-1]
    if last - first >= MAX_FRAMES:
        reason = f"its {len(contents)} frames are numbered {first} to {last}: not one recording"
        raise RecordingError(recording.path, 0, reason)
    frames: dict[int, tuple[str, bytes]] = {}
    for number, file, content in zip(recording.frames, recording.files, contents, strict=True):
        name = Path(file).name
        if number in frames:
            reason = f"{frames[number][0]} and {name} are both frame {number}: two recordings in one folder?"
            raise RecordingError(recording.path, 0, reason)
        frames[number] = name, content
    return [frames.get(number, (f"frame {number}", b"")) for number in range(first, last + 1)]


def _add(found: Scan, spec: DatasetSpec, recording: Recording) -> None:
    if spec.parse_name(recording.key) is None:
        found.foreign.append(recording.path)
        action = spec.action_without_class(recording.key)
        if action is not None:
            found.without_class.setdefault(action, []).append(recording.path)
    elif _printable(recording.key) != recording.key:
        found.foreign.append(recording.path)
        found.not_text.append(recording.path)
    elif recording.key in found.recordings:
        found.duplicates.append(recording.path)
    else:
        found.recordings[recording.key] = recording


def _walk(raw: list[Path], skip: Path | None = None) -> Iterator[_File]:
    """Every file, sorted within each of `raw`, with those inside zip archives."""
    for path in raw:
        whole = str(path.absolute())
        if path.is_dir():
            for file in sorted(_walk_folder(whole, skip), key=lambda file: file.path):
                if file.path.lower().endswith(".zip"):
                    yield from _walk_archive(file.path, file.shown)
                else:
                    yield file
        elif path.is_file() and path.suffix.lower() == ".zip":
            yield from _walk_archive(whole, path.name)
        elif path.is_file():
            status = path.stat()
            yield _File(whole, _printable(path.name), (status.st_size, status.st_mtime_ns))
        else:
            raise ValueError(f"{path}: no such file or folder; expected the folder or zip of the download")


def _walk_folder(top: str, skip: Path | None) -> Iterator[_File]:
    def give_up(error: OSError) -> None:
        raise ValueError(f"{error.filename}: cannot be searched: {error.strerror}")

    entered = {os.path.realpath(skip)} if skip else set()
    for folder, subfolders, names in os.walk(top, followlinks=True, onerror=give_up):
        place = os.path.realpath(folder)
        if place in entered:  # linked, and found before
            subfolders.clear()
            continue
        entered.add(place)
        subfolders.sort()
        inside = "" if folder == top else os.path.relpath(folder, top) + "/"
        for name in names:
            path = f"{folder}/{name}"
            try:
                status = os.stat(path)  # noqa: PTH116
            except OSError:  # also of a link that leads nowhere: reading it tells why
                yield _File(path, _printable(inside + name), UNKNOWN)
                continue
            if stat.S_ISREG(status.st_mode):
                yield _File(path, _printable(inside + name), (status.st_size, status.st_mtime_ns))


def _walk_archive(path: str, shown: str) -> Iterator[_File]:
    try:
        for name, member in list_members(path):
            if not name.startswith("__MACOSX/"):
                inner = _printable(f"{shown}/{name}")
                yield _File(name, inner, (member.size, member.crc), path, member)
    except (OSError, zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"{path}: not a readable zip archive ({reason}); download it again or, "
            f"if it holds none of the recordings, move it away"
        ) from None


def _printable(path: str) -> str:
    """The path as text of one line that can be written as UTF-8, whatever bytes its name has."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _ucla_key(folder: str) -> str:
    """`.../view_1/a01_s01_e00` -> `a01_s01_e00_v01`."""
    parts = Path(folder).parts
    for part in reversed(parts[:-1]):
        if match := UCLA_VIEW.fullmatch(part):
            return f"{parts[-1]}_v{int(match[1]):02d}"
    return parts[-1] if parts else ""


def _nothing_found(raw: list[Path], spec: DatasetSpec, found: Scan, files_seen: int) -> str:
    where, passed_by = ", ".join(map(str, raw)), "".join(f"; {note}" for note in _passed_by(found, spec))
    expected = _expected(spec)
    if files_seen == 0:
        return f"{where}: empty; {spec.name} needs {expected}"
    if found.foreign:
        names = [Path(path).stem for path in found.foreign[:1000]]
        known = [load_spec(name) for name in built_in_names()]
        fitting = [one.name for one in known if any(one.parse_name(name) for name in names)]
        hint = f"; they look like {' or '.join(fitting)}" if fitting else ""
        told = f"recordings: {len(found.foreign):,}, none of {spec.name} (first: {names[0]})"
        return f"{where}: {told}{hint + passed_by or f'; expected {expected}'}"
    other = load_spec("ucla" if spec.reader == "ntu" else "ntu60")
    hint = ""
    if any(_is_recording(file.path, other) for file in _walk(raw)):
        title = "NW-UCLA (ucla)" if other.reader == "ucla" else "NTU RGB+D (ntu60 or ntu120)"
        hint = f"; the files look like {title}"
    told = f"files: {files_seen:,}, none a recording of {spec.name}, which needs {expected}"
    return f"{where}: {told}{hint}{passed_by}"


def _expected(spec: DatasetSpec) -> str:
    """What recordings of the data set look like."""
    if spec.name not in built_in_names():
        return f"files NAME{SUFFIX[spec.reader]} whose NAME fits name_pattern '{spec.name_pattern.pattern}'"
    return {
        "ntu": "files such as S001C001P001R001A001.skeleton, or the official zip archives",
        "ucla": "files such as a01_s01_e00_v01.json, or folders view_1/a01_s01_e00 of *_skeletons.txt",
    }[spec.reader]


def _is_recording(file: str, spec: DatasetSpec) -> bool:
    path = Path(file)
    is_frame = spec.reader == "ucla" and UCLA_FRAME.fullmatch(path.name) is not None
    return is_frame or spec.parse_name(path.stem) is not None
