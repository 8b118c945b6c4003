"""From ratings by people to a policy, and whether it pleases people or only the reward model: see `scripts/rlhf.py`.

Two reward models learn from two halves of the raters. The agents are paid by the first one, the proxy. The second one
and VADER score the same texts without being paid for, so their curves show when the proxy is only exploited.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.table import Table

from agents import RewardModelTrainer
from scripts.agent_arguments import EnvArgs
from scripts.experiments import runs, tables
from scripts.experiments.comparison import COLORS, UNTRAINED, logged, measured
from scripts.experiments.tables import readable
from scripts.preferences.human_ratings import download, ratings_of, write_files
from textgym.arguments import Count, Named, Positive
from textgym.evaluation.statistics import Interval

ENTRIES = (
    "rloo:kl_coef=0,learning_rate=1e-3",
    "grpo:kl_coef=0.1,learning_rate=1e-3",
    "ppo:kl_coef=0.1,learning_rate=3e-4",
    'distribution-matching:target={"name":"rlhf","beta":0.3},learning_rate=1e-3',
)
SCORES = {"proxy": "proxy", "held_out": "held-out", "sentiment": "VADER"}
"""The components of the reward, and their headings."""
HALVES = {"proxy": 1, "held_out": 2}
"""Which half of the raters each reward model learns from."""
SPANS = 20
"""Points of a curve, at most."""
MODEL = "model"
"""The folder of a reward model in that of its run."""
COLUMNS = {**SCORES, "kl_to_reference": "KL", "distinct_2": "distinct-2"}
HEAD = ("agent", *COLUMNS.values(), "turns at KL")


@dataclass
class Args(runs.Args):
    """What to train."""

    agents: tyro.conf.Positional[tuple[str, ...]] = ENTRIES
    """Entries such as `rloo` or `ppo:n_epochs=2,kl_coef=0.02`; `python scripts/train.py ppo --help` lists arguments."""
    env: Annotated[EnvArgs, tyro.conf.arg(name="")] = field(
        default_factory=lambda: EnvArgs(n_envs=32, num_generations=4)
    )
    total_timesteps: Count = 8_000
    """Tokens that a run generates and trains on."""
    out: Path = Path("runs/rlhf")
    """Folder of the table, the figure, the runs and the reward models."""
    ratings: Path = Path("ratings/movies")
    """Ratings as `scripts/ratings.py` writes them; the movie reviews are fetched if there are none."""
    proxy: str | None = None
    """The reward model that pays, a name or a directory; by default one that learns from half 1 of the raters."""
    held_out: str | None = "movie-ratings"
    """The reward model that does not pay: "movie-ratings" has learned from half 2 of those who rated the movie reviews;
    with `None`, one learns from half 2 of `ratings`."""
    reward_model: Named = "tiny"
    """What one that is to learn starts from: a name, a directory or a hub id."""
    reward_epochs: Positive = 1.0
    """Passes over the ratings in its training."""
    reward_learning_rate: Positive = 5e-4
    """Step size of Adam in its training."""

    def evaluation_arguments(self) -> dict[str, Any]:
        """The number of episodes, and what the reward models depend on that are trained."""
        trained = {f"{m.entry}: {name}": value for m in reward_models(self) for name, value in m.arguments.items()}
        return super().evaluation_arguments() | trained


def with_reward(args: Args) -> Args:
    """The arguments with the proxy as the env's reward; ratings that a reward model will learn from are fetched.

    Raises:
        ValueError: the env has a scorer already.
        FileNotFoundError: the folder of ratings lacks a file.
    """
    if args.env.scorer is not None or "scorer" in args.env.env_kwargs:
        raise ValueError("the reward is a reward model; leave out --scorer, and name the model with --proxy")
    if None in (args.proxy, args.held_out):
        if not args.ratings.exists():
            write_files(ratings_of("movies", download()), args.ratings)
        names = [f"{part}-half-{half}.jsonl" for part in ("train", "test") for half in HALVES.values()]
        if lacking := [name for name in names if not (args.ratings / name).is_file()]:
            raise FileNotFoundError(
                f"the folder {str(args.ratings)!r} lacks {lacking}, which scripts/ratings.py writes; a folder that is "
                "not there yet gets the ratings of the movie reviews"
            )
    paths = {"proxy": args.proxy, "held_out": args.held_out}
    paths |= {model.entry: str(model.folder / MODEL) for model in reward_models(args)}
    scorers = [{"name": "reward_model", "model": paths[name], "component_name": name} for name in HALVES]
    reward = {"name": "weighted_sum", "scorers": [*scorers, "sentiment"], "weights": [1, 0, 0]}
    return replace(args, env=replace(args.env, scorer=json.dumps(reward)))


def reward_models(args: Args) -> list[runs.Run]:
    """The reward models that are not given but learn from a half of the raters each, as runs of this experiment."""
    found = []
    for name, half in HALVES.items():
        if getattr(args, name) is None:
            ratings = (args.ratings / f"train-half-{half}.jsonl").read_bytes()
            arguments = {
                "ratings_sha256": hashlib.sha256(ratings).hexdigest(),
                "reward_model": args.reward_model,
                "reward_epochs": args.reward_epochs,
                "reward_learning_rate": args.reward_learning_rate,
                "device": args.device,
            }
            found.append(runs.Run(name, half, args.out / f"reward-model-{half}", None, arguments))
    return found


def train_reward_model(model: runs.Run, args: Args) -> dict[str, Any]:
    """Train a reward model if it is not there, and let both halves of the raters judge it on held-out texts.

    Returns:
        the record of the run: of each half the `Interval` of the share of pairs in its order.

    Raises:
        FileExistsError: a reward model that was trained with other arguments is there.
    """
    if (known := model.result()) is not None:
        return known
    model.write()
    trainer = RewardModelTrainer(
        args.reward_model,
        args.ratings / f"train-half-{model.seed}.jsonl",
        loss="regression",
        learning_rate=args.reward_learning_rate,
        seed=model.seed,
        device=args.device,
    ).learn(args.reward_epochs, progress_bar=True)
    judged = {half: trainer.evaluate(args.ratings / f"test-half-{half}.jsonl").accuracy for half in HALVES.values()}
    trainer.save(model.folder / MODEL)
    return model.write(evaluation={f"half {half}": vars(accuracy) for half, accuracy in judged.items()})


def turn_of(held_out: np.ndarray) -> int | None:
    """The span of training in which the held-out reward is largest, if what follows is below it; else None.

    A largest value is there in noise, too. So the peak is located for each seed in the mean of the others; what its own
    curve loses from that span to the mean of all later ones is then unbiased, and the loss must be larger than its 95%
    interval over seeds. One seed tells nothing.

    Args:
        held_out: (seeds, spans).
    """
    seeds, spans = held_out.shape
    if seeds < 2:
        return None
    gains = []
    for seed, own in enumerate(held_out):
        peak = int(np.delete(held_out, seed, 0).mean(0).argmax())
        gains.append(own[peak + 1 :].mean() - own[peak] if peak + 1 < spans else 0.0)
    gain = Interval.of(gains)
    assert gain.half_width is not None
    return int(held_out.mean(0).argmax()) if gain.mean + gain.half_width < 0 else None


class Report:
    """The table and the figure of all runs.

    Args:
        records: what the runs' run.json hold.
        args: of the experiment.
    """

    def __init__(self, records: list[dict[str, Any]], args: Args):
        self.args = args
        self.records: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            self.records.setdefault(record["agent"], []).append(record)

    @property
    def caption(self) -> str:
        """What the numbers are."""
        args = self.args
        seeds = f"mean and 95% interval over {args.seeds} seeds" if args.seeds > 1 else "one seed"
        return (
            f"{args.env.env_id}, {args.total_timesteps:,} tokens of training, {args.evaluation_episodes} fresh texts "
            f"of each run; {seeds}; KL in nats per text"
        )

    def rows(self) -> Iterable[list[str]]:
        """The table's rows as text; the last column is the KL at which the held-out reward turns."""
        for entry, found in self.records.items():
            cells = [Interval.of([measured(r, c) for r in found]).text("{:.2f}") for c in COLUMNS]
            yield [entry, *cells, "-" if entry == UNTRAINED or len(found) < 2 else self.turn(entry)]

    def turn(self, entry: str) -> str:
        """Where the held-out reward of an entry's rollouts turns, in words."""
        curves = self.curves(entry)
        span = turn_of(curves[..., 2])
        return "not seen" if span is None else f"{curves[:, span, 0].mean():.1f}"

    def curves(self, entry: str) -> np.ndarray:
        """(seeds, spans, 4) KL and `SCORES` of rollouts along the training, means over spans of equally many."""
        names = [f"rollout/{name}" for name in ("kl_to_reference", *SCORES)]
        tables = [logged(self.args.out / record["folder"], *names) for record in self.records[entry]]
        spans = min(SPANS, *map(len, tables))
        return np.array([[part.mean(0) for part in np.array_split(table, spans)] for table in tables])

    def table(self) -> Table:
        """The table for the terminal."""
        return tables.terminal(self.caption, HEAD, self.rows())

    def write(self) -> str:
        """Write rlhf.json, rlhf.md and rlhf.png; returns a line that names them."""
        text = f"{self.caption}.\n\n{tables.markdown(HEAD, self.rows())}"
        (self.args.out / "rlhf.md").write_text(text, encoding="utf-8")
        report = {"caption": self.caption, "runs": self.records}
        (self.args.out / "rlhf.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        self.draw(self.args.out / "rlhf.png")
        return f"written: {self.args.out / 'rlhf'}.json, .md and .png"

    def draw(self, file: Path) -> None:
        """What each entry's texts earn along its training, over their KL; a dot where the held-out reward turns."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4.5), layout="constrained")
        panels = figure.subplots(1, 2)
        for color, entry in zip(COLORS * len(self.records), [e for e in self.records if e != UNTRAINED], strict=False):
            curves = self.curves(entry)
            kl, proxy, held_out, vader = curves.mean(0).T
            panels[0].plot(kl, proxy, color=color, linestyle="--", alpha=0.7)
            panels[0].plot(kl, held_out, color=color, label=readable(entry))
            if (span := turn_of(curves[..., 2])) is not None:
                panels[0].plot(kl[span], held_out[span], "o", color=color)
            panels[1].plot(kl, vader, color=color)
        panels[0].set(ylabel="mean rating by the reward models", title="proxy (dashed) and held-out")
        panels[1].set(ylabel="compound score", title="VADER")
        for axes in panels:
            axes.set(xlabel="KL to the reference (nats per text)")
            axes.grid(alpha=0.3)
        figure.legend(frameon=False, loc="outside lower center", fontsize=8)
        figure.savefig(file, dpi=150)
