"""Judge pairs of texts, one key each: `python scripts/label.py --model runs/first/checkpoint --rater anna`.

Two samples of a model for each prompt, or the pairs of a file (`--source`), are shown side by side. Every key is on the
disk before the next pair is shown: whatever ends the program, repeat the command to go on. Several people label one
folder with different `--rater`, one after the other or at a time, and how far they agree is told at the end. The result
is `preferences.jsonl`, which `textgym.preferences.read_preferences` and TRL read.

A terminal's keys are read as they are pressed; otherwise the characters of standard input are the keys. Left out: keys
in a Windows terminal.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

from rich.markup import escape

from scripts.command_line import console
from scripts.preferences.labelling import Args, key_presses, label, pairs_to_judge
from scripts.preferences.labels import (
    PAIRS,
    PREFERENCES,
    Journal,
    Pair,
    agreement,
    read_journals,
    read_pairs,
    write_pairs,
    write_preferences,
)
from textgym.preferences.raters import SyntheticRater


def judge_all(pairs: list[Pair], journal: Journal, noise: float, seed: int) -> None:
    """A rater that is made up judges what has no verdict yet."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    rater = SyntheticRater(lambda text: analyzer.polarity_scores(text)["compound"], noise=noise, seed=seed)
    for number, pair in enumerate(pairs):
        if number not in journal.verdicts:
            journal.append(number, rater.judge(pair.prompt + pair.first, pair.prompt + pair.second))


def main(args: Args) -> None:
    """Make the pairs unless they are there, ask, and write what was said."""
    if not (args.out / PAIRS).exists():
        write_pairs(args.out, pairs_to_judge(args))
    pairs = read_pairs(args.out)
    journal = Journal(args.out, args.rater, len(pairs))
    if journal.was_cut:
        console.print(f"{journal.path} ended within a line, which is removed; that pair is asked for again")
    try:
        if args.synthetic is not None:
            judge_all(pairs, journal, args.synthetic, args.seed)
        else:
            with key_presses() as press:
                label(pairs, journal, args.rater, press, console)
    finally:
        journals = read_journals(args.out, len(pairs))
        count = write_preferences(args.out, pairs, journals)
        console.print(f"{len(journal.verdicts)} of {len(pairs)} pairs judged or skipped by {args.rater}")
        console.print(escape(agreement(journals)), soft_wrap=True)
        console.print(f"written: {args.out / PREFERENCES}, {count} preferences", soft_wrap=True)
