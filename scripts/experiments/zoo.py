"""What `scripts/compare.py` compares on: one env id, or several."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scripts.experiments import frontier


@dataclass
class Args(frontier.Args):
    """What to compare, and on which ids."""

    env_ids: tuple[str, ...] = ()
    """Ids in place of `--env-id`; each has its table, figure and runs in a folder of its own below `out`."""


def experiments_of(args: Args) -> list[Args]:
    """The comparison on each id."""
    if not args.env_ids:
        return [args]
    return [replace(args, env=replace(args.env, env_id=env_id), out=args.out / env_id) for env_id in args.env_ids]
