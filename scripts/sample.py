"""Print texts from a model or a checkpoint, with their rewards: `python scripts/sample.py --prompt "The plot" --n 4`.

It plays the env through the standard vector API, with the policy choosing the tokens (`textgym.evaluation.play`); that
is all that an agent of your own would need. `--temperature`, `--top-k` and `--top-p` change the policy's distribution,
`--best-of` keeps the best of some texts, and `--target` accepts some, so that they follow a target distribution more
nearly. `--no-score` leaves out the rewards, `--as-chat` makes a chat turn of a prompt, and `--chat` is a conversation.
`--log` keeps whole episodes, on which `scripts/off_policy.py` weighs another policy.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import dataclasses
import json

from rich.console import Console

from scripts.command_line import parse_json
from scripts.sampling.chat import chat
from scripts.sampling.texts import Args, log_episodes, report, samples, samples_towards
from textgym.evaluation import show_sample
from textgym.matching import make_target


def main(args: Args) -> None:
    """Print the texts, or talk."""
    console, acceptance = Console(), None
    if args.log is not None:
        return console.print(f"written: {log_episodes(args)}", soft_wrap=True)
    if args.chat:
        return chat(args, console)
    if args.target is None:
        found = samples(args)
    else:
        found, acceptance = samples_towards(make_target(parse_json("target", args.target)), args)
    for one in found:
        if args.jsonl:
            print(json.dumps(dataclasses.asdict(one), ensure_ascii=False))
        else:
            show_sample(one, console)
    if acceptance is not None:
        report(acceptance, Console(stderr=True, soft_wrap=True, highlight=False))
