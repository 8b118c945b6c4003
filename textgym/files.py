"""Files and folders that are written whole or not at all, whatever ends the process: an error, a kill, a power cut.

Each is written under another name, brought to the disk, and only then takes its place, in one step of the file
system. A pointer is a link that changes in one step, too. Left out: several writers of one path at a time, which a
run's lock prevents (`textgym.training.run`).
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # <fcntl.h>, <linux/fs.h>


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new, empty folder that becomes `path` when the block ends without an error.

    A folder that is there already is exchanged for it without a moment in which neither is (on Linux; elsewhere, and on
    file systems that cannot, there is such a moment, in which the new one still has its temporary name). An error
    leaves the old one, and nothing of the new one.

    Raises:
        OSError: it could not be written; the disk is full, say.
    """
    path = Path(os.path.realpath(path))  # what a link leads to
    path.parent.mkdir(parents=True, exist_ok=True)
    new = temporary_name(path)
    remove(new)  # a process that was killed may have left it
    new.mkdir()
    try:
        yield new
        sync_folder(new)
        if path.exists():
            exchange(new, path)
        else:
            os.rename(new, path)
        sync(path.parent)
    finally:
        remove(new)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write a file that becomes `path` when the block ends without an error; an error leaves the old one.

    Raises:
        OSError: it could not be written; the disk is full, say.
    """
    path = Path(os.path.realpath(path))
    new = temporary_name(path)
    try:
        yield new
        sync(new)
        os.replace(new, path)
        sync(path.parent)
    finally:
        remove(new)


def temporary_name(path: Path) -> Path:
    """Where `path` is while it is written or removed."""
    return path.with_name(f".{path.name}.tmp")


def exchange(new: Path, old: Path) -> None:
    """Swap two folders, in one step where the system can."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    paths = AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(old)
    if rename is not None and rename(*paths, RENAME_EXCHANGE) == 0:
        return
    aside = old.with_name(f".{old.name}.old.tmp")
    remove(aside)
    os.rename(old, aside)
    os.rename(new, old)
    os.rename(aside, new)


def remove(path: Path) -> None:
    """Delete a folder, a file or a link, if it is there. A folder goes under its temporary name first."""
    if path.is_dir() and not path.is_symlink():
        if path != (gone := temporary_name(path)) and not path.name.endswith(".tmp"):
            os.replace(path, gone)  # so that a kill leaves no half of it under its own name
            path = gone
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> list[Path]:
    """Delete what killed processes left half written or half removed in a folder, and say what it was."""
    found = sorted(path for path in folder.glob(".*.tmp"))
    for path in found:
        remove(path)
    return found


def point(pointer: Path, target: Path) -> None:
    """Let `pointer` lead to `target`, in one step: a symbolic link, or a file with the way where there are no links.

    Raises:
        OSError: `pointer` is a folder, or could not be written.
    """
    way, new = os.path.relpath(target, pointer.parent), temporary_name(pointer)
    remove(new)
    try:
        new.symlink_to(way, target_is_directory=True)
    except (OSError, NotImplementedError):
        new.write_text(way, encoding="utf-8")
        sync(new)
    os.replace(new, pointer)
    sync(pointer.parent)


def follow(path: Path) -> Path:
    """What a pointer leads to now; any other path itself."""
    if path.is_symlink():
        return path.parent / os.readlink(path)
    if path.is_file() and path.stat().st_size < 4096:
        way = path.read_text(encoding="utf-8", errors="replace").strip()
        if "\n" not in way and (path.parent / way).is_dir():
            return path.parent / way
    return path


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of names, to the disk."""
    if os.name != "posix" and path.is_dir():
        return  # Windows has no such thing for folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Bring a folder and all that is in it to the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))
