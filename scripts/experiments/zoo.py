"""What `scripts/compare.py` compares on: one env id, several, or those of the zoo in `scripts/configs`.

Its zoo.yaml says for each id how long is trained, and how is measured. The folder of an id's name has the arguments of
each agent, in a file of the agent's name.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import tyro

from scripts.agent_arguments import EnvArgs
from scripts.command_line import check_options
from scripts.config_files import read
from scripts.experiments import frontier
from textgym.arguments import Positive

CONFIGS = Path(__file__).parent.parent / "configs"


@dataclass
class Args(frontier.Args):
    """What to compare, and on which ids."""

    agents: tyro.conf.Positional[tuple[str, ...]] = ()
    """Entries such as `rloo` or `ppo:n_epochs=2,kl_coef=0.02`, or YAML files of an agent's arguments."""
    env_ids: tuple[str, ...] = ()
    """Ids in place of `--env-id`; each has its table, figure and runs in a folder of its own below `out`."""
    beta: Positive | None = None
    """Reward that a nat of KL costs in scores: 0 for the untrained model, 1 for the best. By default none are made."""
    zoo: bool = False
    """Compare the tuned agents in `scripts/configs` on its ids, or on `--env-ids`, as its zoo.yaml says."""


def experiments_of(args: Args) -> list[Args]:
    """The comparison on each id.

    Raises:
        ValueError: agents or an id beside the zoo's, or a zoo.yaml with what cannot be set.
    """
    if args.zoo:
        return zoo_of(args)
    if not args.env_ids:
        return [args]
    return [replace(args, env=replace(args.env, env_id=env_id), out=args.out / env_id) for env_id in args.env_ids]


def zoo_of(args: Args) -> list[Args]:
    """The comparison on each id of the zoo."""
    if args.agents:
        raise ValueError(f"--zoo compares the agents in {CONFIGS}; leave out {list(args.agents)}")
    known = read(CONFIGS / "zoo.yaml")
    if unknown := [env_id for env_id in args.env_ids if env_id not in known]:
        raise ValueError(f"{unknown} are not in the zoo; accepted are {list(known)}")
    return [_of_zoo(args, env_id, known[env_id]) for env_id in args.env_ids or known]


def _of_zoo(args: Args, env_id: str, options: dict[str, Any]) -> Args:
    of_env = {option.name for option in fields(EnvArgs)} & set(options)
    try:
        env = replace(args.env, env_id=env_id, **{name: options[name] for name in of_env})
        own = {name: value for name, value in options.items() if name not in of_env}
        agents = tuple(map(str, sorted((CONFIGS / env_id).glob("*.yaml"))))
        found = replace(args, agents=agents, env=env, out=args.out / env_id, **own)
        check_options(found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{CONFIGS / 'zoo.yaml'}, {env_id}: {error}") from error
    return found
