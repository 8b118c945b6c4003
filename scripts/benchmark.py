"""Measure speed, one JSON object per line: `OMP_NUM_THREADS=1 python scripts/benchmark.py env`.

Each subcommand is a function in `scripts/benchmarks`; to add one, write it and name it in `SUBCOMMANDS`. A figure is
the median over repeated runs, by process CPU time (which other programs on the machine disturb least) and by wall time.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import tyro

from scripts.benchmarks import env, models

SUBCOMMANDS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "env": env.env,
    "imports": env.imports,
    "rollout": models.rollout,
    "update": models.update,
    "train": models.train,
}
"""Name on the command line -> a function with typed arguments that yields one result after the other."""


def main(args: list[str] | None = None) -> None:
    """Run a subcommand and print its results, each with the versions that it was measured with."""
    versions = {"python": platform.python_version()} | {
        p: version(p) for p in ("textgym", "numpy", "gymnasium", "torch", "transformers")
    }
    for result in tyro.extras.subcommand_cli_from_dict(SUBCOMMANDS, args=args):
        print(json.dumps(result | {"versions": versions}), flush=True)


if __name__ == "__main__":
    main()
