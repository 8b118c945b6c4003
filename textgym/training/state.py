"""What a training is between two rollouts, and the folder that it is kept in: safetensors and JSON, no pickle.

A checkpoint is an ordinary transformers model folder with its tokenizer, and beside those files

    algorithm.json        the fields of a `TrainingState`
    training.safetensors  tensors beside the model's: the optimizer's, the value head's, what an agent learns besides
    manifest.json         the format's version, and the SHA-256 of every other file

Whatever is damaged, missing or of another format is refused by the checkpoint's and the file's name before anything is
made of it. Checksums find accidents; they do not say who wrote a checkpoint. Loading one executes none of its code
(`textgym.importing.import_strings` is about the names of modules in its env's arguments).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Self, TypeVar, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from textgym.arguments import plain_numbers
from textgym.files import follow, whole_folder
from textgym.importing import did_you_mean
from textgym.training.random_state import check_random_state

FORMAT = 1
"""The version of what is written here; it changes with any change that an older or newer reader would get wrong."""

TENSORS, MANIFEST = "training.safetensors", "manifest.json"
PACKAGES = "torch", "transformers", "stable-baselines3", "gymnasium", "numpy"


@cache
def package_versions() -> dict[str, str]:
    """The versions of Python and of the packages that a training depends on."""
    return {"python": platform.python_version(), "textgym": version("textgym")} | {n: version(n) for n in PACKAGES}


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names it, the file, and what is wrong."""

    def __init__(self, path: Path, file: str, problem: str):
        super().__init__(f"checkpoint {str(path)!r}, {file}: {problem}")


@contextmanager
def problems_of(path: Path, file: str) -> Iterator[None]:
    """Give an error of the block the checkpoint's and the file's name."""
    try:
        yield
    except (CheckpointError, torch.OutOfMemoryError):
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointError(path, file, str(error) or type(error).__name__) from error


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """The JSON of a checkpoint: every field is a value of the type that it is annotated with.

    Attributes:
        file: where it is.
        named_by: the field with the name of the class whose state it is.
        tensors: names of the tensors beside the model's; filled in when they are written.
        versions: of the packages that wrote it.
    """

    file: ClassVar[str]
    named_by: ClassVar[str]
    tensors: list[str] = field(default_factory=list)
    versions: dict[str, Any] = field(default_factory=lambda: dict(package_versions()))

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The inverse of `dataclasses.asdict`.

        Raises:
            ValueError: a field is missing, unknown, of another type, or negative where it counts.
        """
        if not isinstance(data, dict):
            raise ValueError(f"it holds a {type(data).__name__}, not an object of fields")
        hints = {f.name: get_type_hints(cls)[f.name] for f in dataclasses.fields(cls)}
        for name in data:
            if name not in hints:
                raise ValueError(f"unknown field {name!r}{did_you_mean(name, hints)}")
        for name, hint in hints.items():
            if name not in data:
                raise ValueError(f"the field {name!r} is missing")
            if not _has_type(data[name], hint):
                raise ValueError(f"{name} is {data[name]!r:.80}; it must be {getattr(hint, '__name__', hint)}")
            if hint is int and data[name] < 0:
                raise ValueError(f"{name} is {data[name]}; it cannot be negative")
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is between two rollouts: what changes in it, apart from its tensors.

    Attributes:
        num_timesteps: actions so far, of all rows together.
        n_updates: steps of the optimizer so far.
        iterations: rollouts so far.
        random_state: see `textgym.training.random_state`.
        log: what has been logged since the last row, by name: value, count of a mean, who leaves it out.
        last_episodes: returns and lengths of the last ones, for running means.
    """

    num_timesteps: int
    n_updates: int
    iterations: int
    random_state: dict[str, Any]
    log: dict[str, Any]
    last_episodes: list[Any]


@dataclass(frozen=True, kw_only=True)
class TrainingState(Progress, SavedState):
    """A training between two rollouts, apart from its tensors.

    Attributes:
        algorithm: name of the agent's class.
        arguments: of its constructor.
        functions: names of arguments that were functions, which are not kept.
        env_id: what `gym.make_vec` was called with; None where that is not known.
        env_kwargs: those of its arguments that make the task; None where they were no JSON.
    """

    file: ClassVar[str] = "algorithm.json"
    named_by: ClassVar[str] = "algorithm"
    algorithm: str
    arguments: dict[str, Any]
    functions: list[str]
    env_id: str | None
    env_kwargs: dict[str, Any] | None

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """What `SavedState.from_json` does, with the fields of `Progress` checked as well."""
        state = super().from_json(data)
        check_random_state(state.random_state)
        if not all(isinstance(one, list) and [type(x) for x in one] == [float, int] for one in state.last_episodes):
            raise ValueError("last_episodes must be pairs of a return and a length")
        if not all(isinstance(one, list) and len(one) == 3 and type(one[1]) is int for one in state.log.values()):
            raise ValueError("log must give a value, a count and an exclusion by name")
        return state


def _has_type(value: Any, hint: Any) -> bool:
    if isinstance(hint, UnionType):
        return any(_has_type(value, one) for one in get_args(hint))
    return type(value) is (get_origin(hint) or hint)


def checkpoint_path(path: Any) -> Path:
    """The folder of a checkpoint: the end of a pointer; `name` for `name.zip`, which SB3's callbacks ask for."""
    path = Path(path)
    return follow(path.with_suffix("") if path.suffix == ".zip" else path)


@contextmanager
def new_checkpoint(path: Any, state: SavedState, tensors: dict[str, torch.Tensor]) -> Iterator[Path]:
    """Write a checkpoint; what is there is replaced only by a whole one, and only if it is a checkpoint.

    The block writes the model's files into the folder that it is given.

    Raises:
        FileExistsError: `path` is a file, or a folder of something else.
        OSError: it could not be written; what was there is still there.
    """
    path = checkpoint_path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file()):
        raise FileExistsError(f"{str(path)!r} is there and is no checkpoint, so it is not replaced by one")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    state = dataclasses.replace(state, tensors=sorted(tensors))
    with whole_folder(path) as folder:
        try:
            yield folder
            save_file(tensors, folder / TENSORS)
        except Exception as error:  # writers in Rust (safetensors, tokenizers) have their own for a full disk
            if isinstance(error, SafetensorError) or (type(error) is Exception and "os error" in str(error)):
                raise OSError(f"could not write to {str(folder)!r}: {error}") from error
            raise
        write_json(folder / state.file, dataclasses.asdict(state))
        write_json(folder / MANIFEST, {"format": FORMAT, "files": checksums(folder)})


def write_json(file: Path, data: Any) -> None:
    """Write an object as JSON."""
    file.write_text(json.dumps(plain_numbers(data), indent=1) + "\n", encoding="utf-8")


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by its way from there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): checksum(path) for path in files}


def checksum(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is or was a checkpoint; it may be damaged."""
    return (path / MANIFEST).is_file() or (path / TENSORS).is_file()


def verify(path: Path, *files: str) -> None:
    """Read every file of a checkpoint, and refuse a checkpoint that is not what was written.

    Args:
        path: the folder.
        *files: what must be among them.

    Raises:
        FileNotFoundError: `path` is no checkpoint.
        CheckpointError: a file is missing or was changed, or the format is another one.
    """
    if not is_checkpoint(path):
        raise FileNotFoundError(f"{str(path)!r} is no TextGym checkpoint: it has no {MANIFEST}")
    with problems_of(path, MANIFEST):
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or set(manifest) != {"format", "files"}:
            raise ValueError("it must give 'format' and 'files', and nothing else")
        if manifest["format"] != FORMAT:
            raise ValueError(f"the format is {manifest['format']!r}, and this version of TextGym reads {FORMAT}")
        expected = dict(manifest["files"])
        if missing := set(files) - set(expected):
            raise ValueError(f"it lists no {min(missing)}")
    for name, sha256 in expected.items():
        if not (path / name).is_file():
            raise CheckpointError(path, name, "the file is missing")
        if checksum(path / name) != sha256:
            raise CheckpointError(path, name, f"the file is damaged or was edited: its SHA-256 is not {MANIFEST}'s")


State = TypeVar("State", bound=SavedState)


def read_state(path: Path, kind: type[State], owner: str | None = None) -> State:
    """The state in a checkpoint, after `verify`.

    Args:
        path: the folder.
        kind: which fields it has.
        owner: the class whose state it must be; None for any.

    Raises:
        FileNotFoundError: `path` is no checkpoint.
        CheckpointError: see `verify`; or the state's fields are not those of `kind`.
    """
    verify(path, kind.file, TENSORS)
    with problems_of(path, kind.file):
        data = json.loads((path / kind.file).read_text(encoding="utf-8"))
        name = data.get(kind.named_by) if isinstance(data, dict) else None
        if owner is not None and isinstance(name, str) and name != owner:
            raise ValueError(f"it holds a {name}, not a {owner}")
        return kind.from_json(data)


def read_tensors(path: Path, state: SavedState, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """The tensors beside the model's.

    Raises:
        CheckpointError: they are not those that the state lists.
    """
    with problems_of(path, TENSORS):
        # Cloned, because the file's are mapped, and the file may go.
        tensors = {name: tensor.clone() for name, tensor in load_file(path / TENSORS, device=str(device)).items()}
        check_names(tensors, state.tensors)
    return tensors


def check_names(found: Iterable[str], expected: Iterable[str]) -> None:
    """Refuse other names of tensors than the expected ones, with a ValueError that says one."""
    found, expected = set(found), set(expected)
    for name in sorted(expected - found):
        raise ValueError(f"the tensor {name!r} is missing")
    for name in sorted(found - expected):
        raise ValueError(f"the tensor {name!r} does not belong there{did_you_mean(name, expected)}")
