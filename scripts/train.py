"""Train a baseline agent: `python scripts/train.py reinforce --env-id TextGen-v0 --scorer my_rewards:brevity`.

Writes to `--out`: `checkpoint/` (also a transformers model directory), `progress.csv` and TensorBoard logs. Ctrl-C or
SIGTERM end the training after the current step and still write the checkpoint; `--resume` goes on from it.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback, EveryNTimesteps
from stable_baselines3.common.logger import Logger, make_output_format

import textgym  # noqa: F401 (registers the env ids)
from agents import REINFORCE
from scripts.command_line import Sample, env_arguments, show_sample
from textgym.metrics import evenly_spaced
from textgym.sb3 import EpisodicAlgorithm

console = Console(highlight=False)


@dataclass
class EnvArgs:
    """What to train on."""

    env_id: str = "TextGen-v0"
    scorer: str | None = None
    """A scorer's name, `module:function` or JSON; the id's own by default."""
    prompts: str | None = None
    """A .txt or .jsonl file, or `module:attribute`; the id's own by default."""
    env_kwargs: str = "{}"
    """Further arguments of the env, as JSON."""
    n_envs: int = 64
    num_generations: int = 8
    """Episodes that share a prompt."""

    def make(self) -> gym.vector.VectorEnv[Any, Any, Any]:
        """The vector env."""
        kwargs = env_arguments(self.env_kwargs, scorer=self.scorer, prompts=self.prompts)
        return gym.make_vec(
            self.env_id,
            num_envs=self.n_envs,
            num_generations=self.num_generations,
            autoreset_mode="Disabled",
            **kwargs,
        )


@dataclass
class TrainArgs:
    """What every agent takes."""

    env: Annotated[EnvArgs, tyro.conf.arg(name="")] = field(default_factory=EnvArgs)
    model: str = "tiny"
    """`tiny`, `smollm2-q4`, a directory or a hub id."""
    total_timesteps: int = 200_000
    """Tokens to generate and train on."""
    episodes_per_update: int | None = None
    """`n_envs` by default."""
    learning_rate: float = 1e-4
    kl_coef: float = 0.05
    """Weight of the KL to the reference, in reward per nat."""
    ent_coef: float = 0.0
    max_grad_norm: float = 1.0
    micro_batch_size: int | None = None
    """Episodes per forward-backward pass; all by default."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast; weights stay float32."""
    device: str = "auto"
    seed: int = 0
    threads: int | None = None
    """CPU threads of torch."""
    out: Path = Path("runs/reinforce")
    checkpoint_every: int = 0
    """Tokens between checkpoints, which are kept in `out`/checkpoints; 0: only the last."""
    samples_every: int = 10
    """Updates between printed samples; 0: none."""
    resume: bool = False
    """Go on from `out`/checkpoint."""


@dataclass
class Reinforce(TrainArgs):
    """REINFORCE with a group baseline and a KL penalty."""

    baseline: Literal["leave_one_out", "mean", "none"] = "leave_one_out"
    reward_to_go: bool = False

    def agent(self) -> REINFORCE:
        """The agent, new or resumed."""
        options = {
            name: getattr(self, name)
            for name in ("episodes_per_update", "learning_rate", "kl_coef", "ent_coef", "max_grad_norm")
            + ("micro_batch_size", "dtype", "device", "baseline", "reward_to_go")
        }
        if self.resume:
            return REINFORCE.load(self.out / "checkpoint", self.env.make(), **options)  # type: ignore[return-value]
        return REINFORCE("TokenPolicy", self.env.make(), self.model, seed=self.seed, **options)


class StopOnSignal(BaseCallback):
    """Ends the training after the current env step on SIGINT or SIGTERM; a second signal acts as usual."""

    def _on_training_start(self) -> None:
        self.received: int | None = None
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, number: int, frame: Any) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_step(self) -> bool:
        return self.received is None

    def _on_training_end(self) -> None:
        self._restore()


class ShowProgress(BaseCallback):
    """A progress bar with reward and KL to the reference, and samples now and then."""

    def __init__(self, samples_every: int = 0):
        super().__init__()
        self.samples_every, self.rollouts = samples_every, 0
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%")
        self.bar = Progress(*columns, TimeRemainingColumn(), console=console)

    def _on_training_start(self) -> None:
        total = self.locals["total_timesteps"]
        self.task = self.bar.add_task("the first episodes", total=total, completed=self.num_timesteps)
        self.bar.start()

    def _on_step(self) -> bool:
        self.bar.update(self.task, completed=self.num_timesteps)
        return True

    def _on_rollout_end(self) -> None:
        values, self.rollouts = self.logger.name_to_value, self.rollouts + 1
        reward, kl = values["rollout/reward"], values["rollout/kl_to_reference"]
        self.bar.update(self.task, description=f"update {self.rollouts}  reward {reward:+.3f}  KL {kl:.2f} nats")
        if self.samples_every and self.rollouts % self.samples_every == 0:
            print_samples(self.model, 3, self.bar.console)  # type: ignore[arg-type]

    def _on_training_end(self) -> None:
        self.bar.stop()


def print_samples(agent: EpisodicAlgorithm, count: int, to: Console = console) -> None:
    """Print some episodes of the newest rollout, with their rewards."""
    assert agent.env is not None
    task = agent.env.get_attr("task")[0]
    episodes = agent.rollout_buffer.episodes
    for i in evenly_spaced(range(len(episodes)), count):
        prompt, completion = task.decode_parts(episodes.rows[i].cpu().numpy())
        show_sample(Sample(prompt, completion, episodes.rewards[i].sum().item()), to)


def train(args: Reinforce) -> EpisodicAlgorithm:
    """Train, and write `out`/checkpoint whatever ends the training."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if not args.resume and (args.out / "checkpoint").exists():
        raise FileExistsError(f"{args.out} holds a checkpoint; go on from it with --resume, or choose another --out")
    agent = args.agent()
    suffix = f"-{agent.num_timesteps}" if args.resume else ""  # a resumed run keeps the earlier progress.csv
    formats = [make_output_format(name, str(args.out), suffix) for name in ("csv", "tensorboard")]
    agent.set_logger(Logger(str(args.out), formats))
    stop = StopOnSignal()
    callbacks: list[BaseCallback] = [stop, ShowProgress(args.samples_every)]
    if args.checkpoint_every:
        save = CheckpointCallback(1, str(args.out / "checkpoints"), name_prefix=type(agent).__name__.lower())
        callbacks.append(EveryNTimesteps(args.checkpoint_every, save))
    console.print(f"{type(agent).__name__} on {args.env.env_id}, model {args.model}, device {agent.device}")
    agent.learn(args.total_timesteps, callback=CallbackList(callbacks), reset_num_timesteps=not args.resume)
    agent.save(args.out / "checkpoint")
    console.print(f"{agent.num_timesteps} tokens, {agent._n_updates} updates; checkpoint in {args.out / 'checkpoint'}")
    if stop.received is not None:
        console.print(f"stopped by {signal.Signals(stop.received).name}; go on with --resume")
        sys.exit(128 + stop.received)
    return agent


if __name__ == "__main__":
    train(tyro.cli(tyro.extras.subcommand_type_from_defaults({"reinforce": Reinforce()}), description=__doc__))
