"""The runs of an experiment over agents and seeds: what is trained, evaluated and kept, and what need not be repeated.

`scripts/compare.py` evaluates by sampling, `scripts/rlvr.py` exactly.
"""

from __future__ import annotations

import json
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import tyro
from rich.markup import escape
from stable_baselines3.common.logger import configure

from scripts.agent_arguments import EnvArgs, RunArgs, TrainArgs
from scripts.command_line import console, versions
from scripts.experiments.comparison import UNTRAINED
from scripts.experiments.entries import command_of, label, settings_of, shell_command
from scripts.experiments.workers import LOG, Job, WorkerArgs, outcomes
from textgym.arguments import Count
from textgym.evaluation import ModelPolicy, evaluate
from textgym.files import whole_file
from textgym.sb3 import EpisodicAlgorithm
from textgym.sb3.callbacks import learn
from textgym.training.reference import Reference


@dataclass
class TrainingArgs(ABC):
    """What to compare. A subclass says how a policy is evaluated, and may have arguments of its own for that."""

    agents: tyro.conf.Positional[tuple[str, ...]]
    """Entries such as `rloo` or `ppo:n_epochs=2,kl_coef=0.02`; `python scripts/train.py ppo --help` lists arguments."""
    env: Annotated[EnvArgs, tyro.conf.arg(name="")] = field(default_factory=EnvArgs)
    model: str | None = None
    """A name, a directory or a hub id; by default the env's own. Untrained, it is what KL is measured to."""
    seeds: Count = 3
    """Runs of each entry, with seeds 0, 1, ..."""
    total_timesteps: Count = 20_000
    """Tokens that a run generates and trains on."""
    out: Path = Path("runs/compare")
    """Folder of the table, the figure and the runs."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`, which takes a GPU where there is one."""
    threads: Count | None = None
    """CPU threads of torch in each run."""
    workers: Annotated[WorkerArgs, tyro.conf.arg(name="")] = field(default_factory=WorkerArgs)

    def training_of(self, entry: str) -> TrainArgs | None:
        """What trains an entry; None for the untrained model.

        Raises:
            ValueError: an unknown agent or argument.
        """
        if entry == UNTRAINED:
            return None
        return command_of(entry, RunArgs(self.out, self.total_timesteps), self.env, self.model, self.device)

    @abstractmethod
    def evaluation_arguments(self) -> dict[str, Any]:
        """What the result of an evaluation depends on, as JSON.

        Raises:
            ValueError: the arguments do not go together.
        """

    @abstractmethod
    def evaluate(self, agent: EpisodicAlgorithm, seed: int) -> dict[str, Any]:
        """The evaluation of a run's last policy, as JSON."""


@dataclass
class Args(TrainingArgs):
    """What to compare by sampling."""

    evaluation_split: ClassVar[str | None] = None
    """The part of the prompts that is evaluated on; None for what the env trains on."""
    evaluation_episodes: Count = 256
    """Fresh episodes of each run's last policy, each with a prompt of its own; a multiple of `n_envs`."""

    def evaluation_arguments(self) -> dict[str, Any]:
        """The number of episodes.

        Raises:
            ValueError: it is no multiple of the number of envs.
        """
        if self.evaluation_episodes % self.env.n_envs:
            raise ValueError(
                f"--evaluation-episodes {self.evaluation_episodes} is not a multiple of --n-envs {self.env.n_envs}"
            )
        return {"evaluation_episodes": self.evaluation_episodes}

    def evaluate(self, agent: EpisodicAlgorithm, seed: int) -> dict[str, Any]:
        """A `textgym.evaluation.Evaluation`."""
        # Every prompt drawn by itself, which an agent that compares groups would refuse to train on, and random numbers
        # that no training begins with.
        env = replace(self.env, num_generations=1).make(self.evaluation_split)
        policy = ModelPolicy(env, agent.token_model, seed=seed + 1_000_000)
        policy.reference = agent.reference
        return evaluate(policy, self.evaluation_episodes).to_json()


@dataclass(frozen=True)
class Run:
    """One training and evaluation; `command` is None for the untrained model."""

    entry: str
    seed: int
    folder: Path
    command: TrainArgs | None
    arguments: dict[str, Any]
    """Everything that the result depends on, as JSON."""

    @property
    def title(self) -> str:
        """The run in a few words."""
        return f"{self.arguments['env']['env_id']}: {label(self.entry)}, seed {self.seed}"

    def result(self) -> dict[str, Any] | None:
        """What run.json holds when the run is finished; None before.

        Raises:
            FileExistsError: the folder holds a run with other arguments, or something else.
        """
        file = self.folder / "run.json"
        if not file.is_file():
            if self.folder.is_dir() and any(other.name != LOG for other in self.folder.iterdir()):
                raise FileExistsError(f"{self.folder} holds other files; choose another --out")
            return None
        record = json.loads(file.read_text(encoding="utf-8"))
        theirs, ours = record["arguments"], self.arguments
        if differ := sorted(name for name in theirs | ours if theirs.get(name) != ours.get(name)):
            was = ", ".join(f"{name} {theirs.get(name)!r}, not {ours.get(name)!r}" for name in differ)
            raise FileExistsError(f"{self.folder} is a run with {was}; choose another --out, or remove that folder")
        return record if "evaluation" in record else None

    def write(self, **results: Any) -> dict[str, Any]:
        """Write run.json, whole or not at all, and return what it holds."""
        record = {
            "agent": label(self.entry),
            "seed": self.seed,
            "folder": self.folder.name,
            "arguments": self.arguments,
        }
        record |= results
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.folder / "run.json") as new:
            new.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return record


def plan(args: TrainingArgs) -> list[Run]:
    """The runs, seed by seed: the untrained model and then the entries.

    Raises:
        ValueError: a wrong or repeated entry, or numbers that do not go together.
        FileExistsError: a folder holds a run with other arguments.
    """
    if not args.agents:
        raise ValueError("at least one agent is needed")
    trainings = {entry: args.training_of(entry) for entry in (UNTRAINED, *args.agents)}
    runs = [run_of(entry, training, args, seed) for seed in range(args.seeds) for entry, training in trainings.items()]
    if len({run.folder for run in runs}) < args.seeds * (1 + len(args.agents)):
        raise ValueError(f"every entry needs a folder of its own, but two of {list(args.agents)} share one")
    for run in runs:
        run.result()
    return runs


def run_of(entry: str, command: TrainArgs | None, args: TrainingArgs, seed: int) -> Run:
    """One run of an entry, or of the untrained model."""
    folder = args.out / "{}-{}".format(re.sub(r"[^\w.=,+-]+", "-", label(entry)), seed)
    arguments: dict[str, Any] = {"env": asdict(args.env), "model": args.model, "device": args.device}
    if command is not None:
        command = replace(command, seed=seed)  # type: ignore[call-arg]
        arguments |= {"agent": settings_of(entry)[0], "total_timesteps": args.total_timesteps} | asdict(command)
        del arguments["run"], arguments["evaluation"]
    arguments |= {"seed": seed} | args.evaluation_arguments()
    return Run(entry, seed, folder, command, json.loads(json.dumps(arguments)))


def run_all(experiments: Sequence[TrainingArgs], words: Callable[[dict[str, Any]], str]) -> list[list[dict[str, Any]]]:
    """Run what is not there yet, telling of each in `words`.

    Args:
        experiments: their runs are done together, where the first one says.
        words: a finished run in a line.

    Returns:
        the records of the runs of each experiment; those of failed runs have an "error" in place of an "evaluation".
    """
    plans = [plan(args) for args in experiments]
    runs = {run.folder: (run, args) for args, planned in zip(experiments, plans, strict=True) for run in planned}
    records: dict[Path, dict[str, Any]] = {}

    def finish(run: Run, record: dict[str, Any], text: str) -> None:
        records[run.folder] = record
        console.print(f"\n{len(records)}/{len(runs)} [bold]{escape(run.title)}[/]\n{escape(text)}", soft_wrap=True)

    for run, _ in runs.values():
        if known := run.result():
            finish(run, known, words(known) + ", before")
    jobs = [
        Job(folder, partial(perform, args, run.entry, run.seed))
        for folder, (run, args) in runs.items()
        if folder not in records
    ]
    for job, error in outcomes(jobs, experiments[0].workers):
        run, _ = runs[job.folder]
        if error is not None:
            finish(run, run.write(error=error), f"failed: {error}")
        elif found := run.result():
            finish(run, found, words(found))
    return [[records[run.folder] for run in planned] for planned in plans]


def run_one(args: TrainingArgs, words: Callable[[dict[str, Any]], str]) -> list[dict[str, Any]]:
    """The records of an experiment whose report needs all of its runs.

    Raises:
        RuntimeError: some failed; the others are done, and are not repeated.
    """
    (records,) = run_all([args], words)
    if failed := [f"{r['agent']}, seed {r['seed']}: {r['error']}" for r in records if "error" in r]:
        raise RuntimeError("\n".join(failed))
    return records


def perform(args: TrainingArgs, entry: str, seed: int, folder: Path) -> None:
    """Do a run of an entry, here or in another process; its files go to a folder."""
    run = run_of(entry, args.training_of(entry), args, seed)
    if threads := args.threads or args.workers.threads:
        torch.set_num_threads(threads)
    console.print(f"\n{escape(run.title)}", soft_wrap=True)
    execute(replace(run, folder=folder), args)


def execute(run: Run, args: TrainingArgs) -> dict[str, Any]:
    """Train and evaluate; the record that stands in run.json then."""
    start, cpu_start = time.perf_counter(), time.process_time()
    if run.command is None:
        agent = EpisodicAlgorithm("TokenPolicy", args.env.make(), args.model, seed=run.seed, device=args.device)
    else:
        agent = run.command.agent()
        run.write()
        train(agent, run)
    training_cpu_seconds = time.process_time() - cpu_start
    evaluation = args.evaluate(agent, run.seed)
    return run.write(
        tokens=agent.num_timesteps,
        seconds=round(time.perf_counter() - start, 1),
        training_cpu_seconds=round(training_cpu_seconds, 1),
        command=None if run.command is None else shell_command(run.command),
        versions=versions(),
        evaluation=evaluation,
    )


def train(agent: EpisodicAlgorithm, run: Run) -> None:
    """Train, with a log in the run's folder; the program ends where the training breaks off."""
    if agent.reference is None:  # its objective needs none, the comparison does
        agent.reference = Reference(agent.token_model, None, given=False)
    agent.set_logger(configure(str(run.folder), ["csv"]))
    try:
        stopped = learn(agent, run.arguments["total_timesteps"], console=console)
    except FloatingPointError as error:
        raise FloatingPointError(f"{run.entry}, seed {run.seed}: training stopped: {error}") from error
    agent.logger.close()
    if stopped is not None:
        console.print("stopped; repeat the command to go on")
        sys.exit(128 + stopped)
