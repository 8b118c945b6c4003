"""The arguments of `scripts/train.py`: how long to train and on what, and for each agent its own.

An agent's arguments are those of its constructor and of its policy. Names, types, defaults and descriptions are read
off them, so that a new agent in `agents` is a new subcommand.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import gymnasium as gym
import torch
import tyro
from rich.console import Console

import agents
import textgym  # noqa: F401 (registers the env ids)
from agents.policy_gradient import PolicyGradient
from scripts.command_line import env_arguments, text_or_json
from scripts.evaluation_arguments import side_by_side
from scripts.typed_arguments import help_of, options_of, read_values, typed
from textgym.arguments import Argument, Count, Positive, Range, arguments_of
from textgym.evaluation import Success
from textgym.language_models.token_model import TokenModel
from textgym.sb3 import EpisodicAlgorithm
from textgym.sb3.evaluation import EvaluationCallback
from textgym.sb3.policy import POLICY_ARGUMENTS
from textgym.sb3.trackers import TrackerName
from textgym.training.run import RunFolder
from textgym.wrappers.vector import PotentialShaping

COMMON = arguments_of(EpisodicAlgorithm)
OF_THE_SCRIPT = {"policy", "env", "n_envs", "num_generations", "policy_kwargs"} | {
    *("stats_window_size", "tensorboard_log", "verbose", "_init_setup_model")
}
"""Arguments of agents that the command line has in another form, or not at all."""

POTENTIAL = "potential"
"""The option that pays each token by itself (`PotentialShaping`)."""
PAID_BY_TOKEN = PolicyGradient, agents.SoftQLearning
"""Agents to which it matters which token earned what."""

OptimizerName = Literal["adam", "sgd"]
OPTIMIZERS: dict[OptimizerName, dict[str, Any]] = {
    "adam": {},
    "sgd": {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {"momentum": 0.9}},
}
"""The policy's arguments for each optimizer; SB3's default is Adam."""


@dataclass
class RunArgs:
    """How long to train, and what to write."""

    out: Path
    """Folder of logs and checkpoints."""
    total_timesteps: Count = 200_000
    """Tokens to generate and train on in all, those before a resumed checkpoint included."""
    threads: Count | None = None
    """CPU threads of torch."""
    checkpoint_minutes: Positive = 10.0
    """Minutes between checkpoints, which are written between two rollouts."""
    checkpoint_every: Count | None = None
    """Tokens between checkpoints, if that is sooner."""
    keep_checkpoints: Count = 2
    """How many are kept in `out`/checkpoints; `out`/checkpoint is the newest."""
    samples_every: Annotated[int, Range(0)] = 10
    """Updates between printed samples; 0: none."""
    report_to: tuple[TrackerName, ...] = ()
    """Trackers that get the log as well, on this machine: `wandb`, which is offline unless WANDB_MODE says otherwise,
    or `trackio`."""
    resume: bool = False
    """Go on with the run in `out`, from its newest checkpoint."""


@dataclass
class EnvArgs:
    """What to train on."""

    env_id: str = "TextGen-v0"
    """`python -m textgym` lists the ids."""
    scorer: str | None = None
    """A scorer's name, `module:function` or JSON; the id's own by default."""
    prompts: str | None = None
    """A .txt or .jsonl file, or `module:attribute`; the id's own by default."""
    env_kwargs: str = "{}"
    """Further arguments of the env, as JSON."""
    n_envs: Annotated[Count, help_of(COMMON["n_envs"])] = COMMON["n_envs"].default
    num_generations: Annotated[Count, help_of(COMMON["num_generations"])] = COMMON["num_generations"].default

    def make(self, split: str | None = None) -> gym.vector.VectorEnv[Any, Any, Any]:
        """The vector env, with another `split` than its own arguments' where one is given."""
        kwargs = env_arguments(self.env_kwargs, scorer=self.scorer, prompts=self.prompts)
        kwargs |= {} if split is None else {"split": split}
        return gym.make_vec(
            self.env_id,
            num_envs=self.n_envs,
            num_generations=self.num_generations,
            autoreset_mode="Disabled",
            **kwargs,
        )


@dataclass
class EvaluationArgs:
    """How to evaluate while training, in an env of the same id: `textgym.sb3.evaluation.EvaluationCallback`."""

    eval_freq: Count | None = None
    """Tokens between evaluations, which `out`/evaluations.jsonl keeps; none by default."""
    eval_episodes: Count = 256
    """Texts of each evaluation."""
    eval_split: str | None = None
    """`test` evaluates on held-out prompts; then train on others, with `--env-kwargs '{"split": "train"}'`."""
    eval_scorers: tuple[str, ...] = ()
    """Scorers besides the env's, which training does not see: names, import strings or JSON dicts."""
    eval_pass_at: tuple[Count, ...] = ()
    """The k of every pass@k: the chance that one of k texts of a prompt earns 1 or more."""
    eval_metric: str = "reward"
    """`out`/best is the checkpoint with the largest: `reward`, `scorer/NAME`, `pass@8` or another number."""
    patience: Count | None = None
    """Evaluations without a new best after which the training ends."""
    kl_budget: Positive | None = None
    """The training ends where an evaluation finds more nats of KL to the reference per text."""

    def callback(self, run: RunFolder, env: EnvArgs, console: Console) -> EvaluationCallback | None:
        """What evaluates, if it is wanted.

        Raises:
            ValueError: `eval_episodes` is no multiple of the texts of a prompt, or what the env or callback raises.
        """
        if self.eval_freq is None:
            return None
        group = max(self.eval_pass_at, default=1)
        if self.eval_episodes % group:
            raise ValueError(
                f"--eval-episodes {self.eval_episodes} is not a multiple of {group}, the texts of a prompt"
            )
        rows = side_by_side(self.eval_episodes // group, group)
        return EvaluationCallback(
            run,
            dataclasses.replace(env, n_envs=rows, num_generations=group).make(split=self.eval_split),
            self.eval_freq,
            self.eval_episodes,
            metric=self.eval_metric,
            patience=self.patience,
            kl_budget=self.kl_budget,
            success=Success(self.eval_pass_at, group) if self.eval_pass_at else None,
            scorers=[text_or_json("eval-scorers", text) for text in self.eval_scorers],
            console=console,
        )


@dataclass
class TrainArgs:
    """What every agent takes; `command_for` adds the agent's own arguments."""

    algorithm: ClassVar[type[EpisodicAlgorithm]]
    run: Annotated[RunArgs, tyro.conf.arg(name="")]
    env: Annotated[EnvArgs, tyro.conf.arg(name="")] = field(default_factory=EnvArgs)
    evaluation: Annotated[EvaluationArgs, tyro.conf.arg(name="")] = field(default_factory=EvaluationArgs)
    optimizer: OptimizerName = "adam"
    """SGD has momentum 0.9, and wants a larger learning rate, such as 0.4; docs/frontier.md says when to take it."""

    def agent(self) -> EpisodicAlgorithm:
        """The agent, new or resumed.

        Raises:
            ValueError: an argument that should be JSON is none, or what the agent or its checkpoint raises.
        """
        options = read_values(written_arguments(self.algorithm), self)
        of_checkpoint = ("model", "peft", "lora", "seed", *self.algorithm.adapted_arguments(options))
        options["policy_kwargs"] = {name: options.pop(name) for name in POLICY_ARGUMENTS if name in options}
        options["policy_kwargs"] |= OPTIMIZERS[self.optimizer]
        if options.get("reference") is None:
            options.pop("reference", None)  # a checkpoint has its own
        if not self.run.resume:
            return self.algorithm("TokenPolicy", self._training_env(), **options)
        for name in of_checkpoint:
            options.pop(name)
        return self.algorithm.load(self.run.out / "checkpoint", self._training_env(), **options)

    def _training_env(self) -> gym.vector.VectorEnv[Any, Any, Any]:
        potential = getattr(self, POTENTIAL, None)
        if potential is not None and not getattr(self, "reward_to_go", True):
            raise ValueError("--potential says which token earned what, which only --reward-to-go reads; add it")
        env = self.env.make()
        return env if potential is None else PotentialShaping(env, text_or_json(POTENTIAL, potential))


def written_arguments(algorithm: type[EpisodicAlgorithm]) -> dict[str, Argument]:
    """The arguments of an agent and of its policy that a command line can give, by name."""
    own = {name: argument for name, argument in arguments_of(algorithm).items() if name not in OF_THE_SCRIPT}
    policy = {name: arguments_of(TokenModel)[name] for name in POLICY_ARGUMENTS}
    if "vf_coef" not in own:  # it learns no values
        del policy["value_function"]
    return {name: argument for name, argument in (own | policy).items() if typed(argument.annotation) is not None}


def command_for(algorithm: type[EpisodicAlgorithm]) -> type[TrainArgs]:
    """The dataclass of an agent's arguments, with the agent's own defaults."""
    fields = options_of(written_arguments(algorithm), seed=0)  # so that a command repeated gives the same numbers
    if issubclass(algorithm, PAID_BY_TOKEN):
        about = "A scorer whose change pays each token, best the env's own; rewards then count from the prompt's."
        fields.append((POTENTIAL, Annotated[str | None, tyro.conf.arg(help=about)], None))
    about = str(algorithm.__doc__).partition("\n")[0]
    namespace = {"algorithm": algorithm, "__doc__": about, "__module__": __name__}
    return dataclasses.make_dataclass(algorithm.__name__, fields, bases=(TrainArgs,), namespace=namespace)


def command_name(algorithm: type) -> str:
    """The name of an agent's command, such as "ppo" or "soft-q-learning"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", algorithm.__name__).lower()


ALGORITHMS = [cls for cls in (getattr(agents, name) for name in agents.__all__) if issubclass(cls, EpisodicAlgorithm)]
COMMANDS: dict[str, type[TrainArgs]] = {command_name(algorithm): command_for(algorithm) for algorithm in ALGORITHMS}
