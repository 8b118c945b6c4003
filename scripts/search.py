"""Search an agent's arguments: `python scripts/search.py ppo:kl_coef=0.5 learning_rate n_epochs=1..4 --trials 20`.

The agent, with the arguments that stay fixed, is followed by those that are searched over: `name` alone (around its
default, within the range that the agent accepts), `name=low..high` or `name=a|b|c`. Optuna's TPE proposes trials, the
agent's defaults first where they are among these. A trial is an entry of compare.py, trained once per seed and
evaluated by sampling. The best has the most reward - beta KL, mean over seeds; `--save` writes it as a file that
compare.py and `train.py --config` take.

Repeat the command to go on after an interruption, or with more trials: `out`/search.log has the trials, and finished
runs are not repeated. Needs the extra `search`.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.command_line import console
from scripts.experiments import runs
from scripts.experiments.entries import COMMANDS, settings_of
from scripts.experiments.search import Search
from scripts.experiments.search_space import dimension
from textgym.arguments import Count, NonNegative, Seed


@dataclass
class Args(runs.Args):
    """What to search, and for how long."""

    trials: Count = 20
    """Trials in all, those of an earlier call included."""
    beta: NonNegative = 0.1
    """Reward that a nat of KL to the untrained model costs."""
    at_once: Count = 1
    """Trials that are proposed together; `--processes` or `--ray` do them side by side."""
    sampler_seed: Seed = 0
    """Of Optuna's sampler."""
    save: Path | None = None
    """A YAML file for the best trial's arguments, which compare.py and `train.py --config` take."""
    seeds: Count = 2
    """Runs of each trial, with seeds 0, 1, ..."""
    out: Path = Path("runs/search")
    """Folder of the trials and their runs."""


def main(args: Args) -> dict[str, Any]:
    """Search, and print and save what is best; its arguments."""
    entry, *names = args.agents or ("",)
    agent, _ = settings_of(entry)
    if agent not in COMMANDS or not names:
        raise ValueError(
            f"{shlex.join(args.agents)!r} is no search: the agent comes first, one of {sorted(COMMANDS)}, and then "
            "what to search over, such as learning_rate"
        )
    search = Search(args, entry, [dimension(agent, name) for name in names], args.beta)
    best = search.run(args.trials, args.at_once)
    settings, value = search.settings(best), best.value
    console.print(
        f"\nbest of {args.trials} trials, reward - {args.beta:g} KL = {value:.3f}: {best.params}", soft_wrap=True
    )
    if args.save is not None:
        command = shlex.join(["python", "scripts/search.py", *sys.argv[1:]])
        head = f"# {command}\n# The best of {args.trials} trials: reward - {args.beta:g} KL = {value:.3f}\n"
        args.save.parent.mkdir(parents=True, exist_ok=True)
        rows = {"n_envs": str(args.env.n_envs), "num_generations": str(args.env.num_generations)}
        lines = [f"{name}: {text}\n" for name, text in ({"agent": agent} | rows | settings).items()]
        args.save.write_text(head + "".join(lines), encoding="utf-8")
    return settings
