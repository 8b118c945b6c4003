"""Compare ways to ask: `python scripts/compare_prompts.py '{"examples": 0}' '{"examples": 4}' --model smollm2-q4`.

Each entry is a JSON object of arguments of the prompt source `few_shot`: how many examples stand before a question and
which, a template, an instruction. The questions are those of the env, or of `--prompts`, and are the same for all
entries. The table has the mean reward of each entry, and how far it is from the first one, question by question, with
95% intervals. Nothing is trained.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import json
import time

from scripts.command_line import console, versions
from scripts.experiments.prompting import Args, Asked, ask, questions_of, report
from scripts.policies import load


def main(args: Args) -> list[Asked]:
    """Ask in every way, print the table, and write the JSON file if one is named."""
    entries = args.asked()
    loaded = load(args, args.rows())
    sources = [questions_of(loaded, entry) for entry in entries]
    results = []
    for entry, source in zip(args.entries, sources, strict=True):
        start = time.process_time()
        results.append(ask(loaded, entry, source, args))
        console.print(f"{entry}: {time.process_time() - start:.0f} s of CPU", soft_wrap=True, markup=False)
    console.print(report(results, f"{args.model} in {loaded.env_id}", args), soft_wrap=True, markup=False)
    if args.json is not None:
        run = {"model": args.model, "env_id": loaded.env_id, "env_kwargs": loaded.env_kwargs, "seed": args.seed}
        run |= {"versions": versions(), "entries": [vars(one) for one in results]}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(run, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return results
