"""Measure speed, one JSON object per line: `OMP_NUM_THREADS=1 python scripts/benchmark.py env`.

Each subcommand is a function in `scripts/benchmarks`; to add one, write it and name it in `SUBCOMMANDS`. A figure is
the median over repeated runs, by process CPU time (which other programs on the machine disturb least) and by wall time.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Union

import tyro

from scripts.benchmarks import adapters, env, exact, models, processes, reward_models, scorers, startup, wrappers
from scripts.command_line import versions

SUBCOMMANDS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "env": env.env,
    "exact": exact.exact,
    "startup": startup.startup,
    "processes": processes.processes,
    "rollout": models.rollout,
    "update": models.update,
    "train": models.train,
    "reward-model": reward_models.reward_model,
    "peft": adapters.peft,
    "wrappers": wrappers.wrappers,
    "scorers": scorers.scorers,
}
"""Name on the command line -> a function with typed arguments that yields one result after the other."""
Args: Any = Union[tuple(Annotated[f, tyro.conf.subcommand(name=name)] for name, f in SUBCOMMANDS.items())]  # noqa: UP007


def main(results: Iterator[dict[str, Any]]) -> None:
    """Print the results of a subcommand, each with the versions that it was measured with."""
    for result in results:
        print(json.dumps(result | {"versions": versions()}), flush=True)
