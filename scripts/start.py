"""How a script starts: its command line is read before torch, transformers and stable-baselines3 are imported.

Importing them takes seconds, which a help page or a mistyped option need not wait for. So the script is first imported
with stand-ins in their place: objects that do nothing, but of which classes and annotations can be made. What the
options are, their help and their ranges, does not depend on these libraries, so it need not be written a second time
for the sake of speed. If the command line is right, the script is imported again with the real libraries.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, Union

HEAVY = {"torch", "transformers", "stable_baselines3", "safetensors", "peft"}
OURS = {"textgym", "agents", "scripts"}


class StandIn:
    """Whatever is named in a library that is not imported: a module, class, function or decorator."""

    __iter__ = None

    def __getattr__(self, name: str) -> StandIn:
        """Another one; dunder names would be taken for protocols."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A decorator returns what it decorates, so that its signature can be read."""
        return args[0] if len(args) == 1 and callable(args[0]) else self

    def __getitem__(self, key: Any) -> StandIn:
        """A generic type with its parameters is one as well."""
        return self

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        """A class has only the other ones of its bases."""
        return ()

    def __or__(self, other: Any) -> Any:
        """A union keeps its other types."""
        return Union[StandIn, other]  # noqa: UP007 (`other` may be one as well)

    __ror__ = __or__


class StandIns(MetaPathFinder, Loader):
    """Finds an empty module, all of whose attributes are stand-ins, for every module of the heavy libraries."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """Of the heavy libraries alone."""
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in HEAVY else None

    def exec_module(self, module: ModuleType) -> None:
        """Give it any attribute that is asked for."""
        module.__getattr__ = StandIn().__getattr__  # type: ignore[method-assign]


@contextmanager
def stand_ins() -> Iterator[None]:
    """Within the block the heavy libraries are stand-ins; afterwards nothing that was imported with them remains."""
    finder, before = StandIns(), set(sys.modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in HEAVY | OURS:
                del sys.modules[name]


def start_script(file: str) -> NoReturn:
    """Run the script in a file of this folder, which has `main` and `Args`, and end the program.

    It is called before the script's own imports.
    """
    name = f"scripts.{Path(file).stem}"
    if not HEAVY & set(sys.modules):
        with suppress(Exception), stand_ins():  # what else is wrong is told by the import that counts
            script = import_module(name)
            import_module("scripts.command_line").parse(script.Args, script.__doc__, sys.argv[1:])
    script = import_module(name)
    import_module("scripts.command_line").run_script(script.main, script.Args, script.__doc__)
    sys.exit()
