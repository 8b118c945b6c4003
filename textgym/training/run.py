"""The folder of a run, which one process at a time holds, and whose newest checkpoint is always whole.

    OUT/checkpoints/1200   checkpoints by the number of actions so far; the last ones are kept
    OUT/checkpoint         a link to the newest, which changes in one step
    OUT/progress.csv       the log
    OUT/tensorboard        the same for TensorBoard
    OUT/lock               locked by the system for as long as the process lives, however it ends

Left out: what is in a checkpoint (`textgym.training.state`) and who logs (`textgym.sb3.logs`).
"""

from __future__ import annotations

import filecmp
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from textgym.arguments import Count, check_argument
from textgym.files import follow, point, remove, remove_leftovers, sync

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps two processes apart
    fcntl = None  # type: ignore[assignment]

LOCK, LOG, BOARD, POINTER, CHECKPOINTS = "lock", "progress.csv", "tensorboard", "checkpoint", "checkpoints"


class RunFolder:
    """A run's folder; `open_run` opens one.

    Args:
        path: the folder.
        keep: how many checkpoints are kept, the newest included.
    """

    def __init__(self, path: Path, keep: int = 2):
        check_argument("keep", keep, Count)
        self.path, self.keep = path, keep
        self.log, self.board, self.pointer = path / LOG, path / BOARD, path / POINTER

    @property
    def checkpoint(self) -> Path | None:
        """The newest checkpoint; None where there is none so far.

        Raises:
            FileNotFoundError: the folder of it is gone.
            ValueError: what is there is none of the run's checkpoints.
        """
        if not os.path.lexists(self.pointer):
            return None
        target = follow(self.pointer)
        if not target.is_dir():
            raise FileNotFoundError(f"{str(self.pointer)!r} leads to {str(target)!r}, which is not there")
        if not target.name.isdecimal():
            raise ValueError(f"{str(self.pointer)!r} leads to {str(target)!r}, which is none of the run's checkpoints")
        return target

    @property
    def num_timesteps(self) -> int:
        """Actions before the newest checkpoint; 0 where there is none."""
        checkpoint = self.checkpoint
        return 0 if checkpoint is None else int(checkpoint.name)

    def save(self, write: Callable[[Path], None], num_timesteps: int) -> None:
        """Write a checkpoint; only when it is whole, and the log before it on the disk, it becomes the newest.

        Args:
            write: gets the path to write to, and writes it whole or not at all (`Agent.save`).
            num_timesteps: actions so far.

        Raises:
            OSError: it could not be written; the newest one is the one before.
        """
        target = self.path / CHECKPOINTS / str(num_timesteps)
        write(target)
        if self.log.is_file():
            sync(self.log)
        point(self.pointer, target)
        kept = [target, *self.earlier[: -self.keep : -1]]
        for path in self._numbered():  # and what came after a checkpoint that was returned to
            if path not in kept:
                remove(path)

    @property
    def earlier(self) -> list[Path]:
        """Checkpoints before the newest, the oldest first."""
        return [path for path in self._numbered() if int(path.name) < self.num_timesteps]

    def mend_pointer(self) -> None:
        """Point to a checkpoint again where a copy of the run has no link: none at all, or a folder in its place."""
        numbered = self._numbered()
        if self.pointer.is_dir() and not self.pointer.is_symlink():
            numbered = [path for path in numbered if _same_files(path, self.pointer)]
            if numbered:
                remove(self.pointer)
        if numbered and not os.path.lexists(self.pointer):
            point(self.pointer, numbered[-1])

    def _numbered(self) -> list[Path]:
        folders = (self.path / CHECKPOINTS).glob("*")
        return sorted((path for path in folders if path.name.isdecimal()), key=lambda path: int(path.name))


def _same_files(one: Path, other: Path) -> bool:
    names = [path.name for path in one.iterdir() if path.is_file()]
    return filecmp.cmpfiles(one, other, names, shallow=False)[0] == names


@contextmanager
def open_run(path: Path, resume: bool, keep: int = 2) -> Iterator[RunFolder]:
    """Hold a run's folder, made where it is missing, until the block ends.

    Args:
        path: the folder.
        resume: go on with the run that is there. One that ended before its first checkpoint has none to go on from.
        keep: how many checkpoints are kept.

    Raises:
        FileExistsError: a run is there, and `resume` is False.
        FileNotFoundError: none is there, and `resume` is True.
        BlockingIOError: another process holds the folder.
        NotADirectoryError: it is a file.
    """
    run = RunFolder(path, keep)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{str(path)!r} is a file; a run needs a folder")
    if resume and not (path / LOCK).is_file():
        raise FileNotFoundError(f"there is no run in {str(path)!r} to go on with; leave out --resume to begin one")
    path.mkdir(parents=True, exist_ok=True)
    with locked(path / LOCK):
        for folder in (path, path / CHECKPOINTS):
            remove_leftovers(folder)
        if not resume and any(os.path.lexists(path / name) for name in (LOG, BOARD, POINTER, CHECKPOINTS)):
            raise FileExistsError(
                f"{str(path)!r} holds a run; choose another --out, or go on with it (train.py --resume)"
            )
        run.mend_pointer()
        yield run


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Lock a file until the block or the process ends.

    Raises:
        BlockingIOError: another process has locked it.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 100).decode(errors="replace") or "unknown"
            raise BlockingIOError(
                f"another training writes to {str(file.parent)!r}, process {holder}; choose another --out"
            ) from error
        except OSError as error:
            warnings.warn(f"{str(file.parent)!r} cannot be locked: {error}", stacklevel=2)
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)
