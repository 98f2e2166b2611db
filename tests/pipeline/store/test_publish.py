"""Files appear whole or not at all, also after a power cut."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from pipeline.store.publish import LOCK, alone, publish_bytes, published


def test_what_appears_is_on_disk_before_and_after_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a record, or the manifest, would vouch for files that are empty or not there."""
    events: list[int | str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(descriptor: int) -> None:
        events.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def noting_replace(path: Path, target: Path) -> Path:
        events.append("renamed")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    place = tmp_path / "out" / "records" / "00000.json"
    for content in (b"{}", b"[]"):
        publish_bytes(place, content)
        assert place.read_bytes() == content
    folders = [folder.stat().st_ino for folder in (tmp_path, tmp_path / "out")]
    assert events[:2] == folders
    first, second = events[2:5], events[5:]
    for written in (first, second):
        assert written[1:] == ["renamed", place.parent.stat().st_ino]
    assert second[0] == place.stat().st_ino


def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    """Half a table would take the place of a whole one."""
    place = tmp_path / "samples.csv"
    publish_bytes(place, b"whole")

    def interrupted() -> None:
        with published(place) as temporary:
            temporary.write_bytes(b"ha")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("samples.csv", b"whole")]


def test_two_who_write_the_same_file_do_not_meet(tmp_path: Path) -> None:
    """Processes of two machines that share a disk may have one number."""
    path = tmp_path / "shard"
    with published(path) as one, published(path) as other:
        one.write_bytes(b"whole")
        other.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_locked_where_only_what_is_open_for_writing_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where clusters work: nobody would be kept out, and nobody be told."""
    flock = fcntl.flock

    def flock_of_nfs(descriptor: int, operation: int) -> None:
        if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_RDWR:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_of_nfs)
    with (
        alone(tmp_path, "another", "go elsewhere"),
        pytest.raises(ValueError, match="another is writing there; wait for it, or go elsewhere"),
        alone(tmp_path, "another", "go elsewhere"),
    ):
        pass
    with alone(tmp_path, "another", "go elsewhere"):
        pass


def test_a_lock_of_another_user_keeps_out_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their file cannot be opened for writing."""
    real = os.open

    def as_another(path: Path, flags: int, mode: int = 0o777) -> int:
        if Path(path).name == LOCK and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, mode)

    with alone(tmp_path, "another", "go elsewhere"):
        monkeypatch.setattr(os, "open", as_another)
        with (
            pytest.raises(ValueError, match="another is writing"),
            alone(tmp_path, "another", "go elsewhere"),
        ):
            pass


def test_a_folder_in_which_no_file_can_be_made_is_locked_itself(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with (
        alone(tmp_path, "another", "go elsewhere"),
        pytest.raises(ValueError, match="another is writing there"),
        alone(tmp_path, "another", "go elsewhere"),
    ):
        pass
