"""The arguments of `scripts/train.py`: how long to train and on what, and for each agent its own.

An argument stands here once, with the agent's own default; all but `run` and `env` go to the agent or to its policy.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import gymnasium as gym
import tyro

import agents
import textgym  # noqa: F401 (registers the env ids)
from agents.distribution_matching import DEFAULT_TARGET, MatchingBaseline
from agents.policy_gradient import KLPenalty
from agents.proposals import ProposalName
from agents.soft_q_learning import Consistency
from scripts.command_line import env_arguments, parse_json
from textgym.language_models.token_model import ValueFunction
from textgym.matching import DivergenceName
from textgym.sb3 import EpisodicAlgorithm
from textgym.sb3.checkpoints import POLICY_ARGUMENTS
from textgym.training.returns import Baseline
from textgym.training.updates import Normalization


@dataclass
class RunArgs:
    """How long to train, and what to write."""

    out: Path
    total_timesteps: int = 200_000
    """Tokens to generate and train on."""
    threads: int | None = None
    """CPU threads of torch."""
    checkpoint_every: int = 0
    """Tokens between checkpoints, which are kept in `out`/checkpoints; 0: only the last."""
    samples_every: int = 10
    """Updates between printed samples; 0: none."""
    resume: bool = False
    """Go on from `out`/checkpoint."""


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
    """What every agent takes. All but `run` and `env` are arguments of the agent or of its policy."""

    algorithm: ClassVar[type[EpisodicAlgorithm]]
    json_arguments: ClassVar[tuple[str, ...]] = ("lora",)
    run: Annotated[RunArgs, tyro.conf.arg(name="")]
    env: Annotated[EnvArgs, tyro.conf.arg(name="")] = field(default_factory=EnvArgs)
    model: str | None = None
    """`tiny`, `smollm2-q4`, a directory or a hub id; by default the one that the env's tokenizer belongs to."""
    reference: str | None = None
    """What KL is measured to; the untrained model by default."""
    lora: str | None = None
    """Train adapters: arguments of peft.LoraConfig as JSON, such as '{"r": 16}'."""
    episodes_per_update: int | None = None
    """`n_envs` by default."""
    learning_rate: float = 1e-4
    gamma: float = 1.0
    ent_coef: float = 0.0
    max_grad_norm: float = 1.0
    micro_batch_size: int | None = None
    """Episodes per forward-backward pass at most; it does not change the gradient."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast; weights stay float32."""
    temperature: float = 1.0
    """Of the policy's distribution, in sampling and in training, as are `top_k` and `top_p`."""
    top_k: int | None = None
    top_p: float | None = None
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    device: str = "auto"
    seed: int = 0

    def agent(self) -> EpisodicAlgorithm:
        """The agent, new or resumed.

        Raises:
            ValueError: `lora` or `target` is no JSON, or what the agent or its checkpoint raises.
        """
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("run", "env")}
        options["policy_kwargs"] = {name: options.pop(name) for name in POLICY_ARGUMENTS if name in options}
        if self.reference is None:
            del options["reference"]  # a checkpoint has its own
        for name in self.json_arguments:
            options[name] = None if options[name] is None else parse_json(name, options[name])
        if not self.run.resume:
            return self.algorithm("TokenPolicy", self.env.make(), **options)
        for name in self.of_checkpoint:
            options.pop(name)
        return self.algorithm.load(self.run.out / "checkpoint", self.env.make(), **options)

    @property
    def of_checkpoint(self) -> tuple[str, ...]:
        """What a resumed run takes from its checkpoint, whatever the command line says."""
        return "model", "lora", "seed"


@dataclass
class PolicyGradientArgs(TrainArgs):
    """What REINFORCE, RLOO, GRPO and PPO take."""

    batch_size: int | None = None
    """Episodes in a minibatch; all by default."""
    n_epochs: int = 1
    """Passes over the episodes of an update."""
    clip_range: float | None = None
    """Of the probability ratio; None: the plain policy gradient."""
    target_kl: float | None = None
    """Nats per token between old and new policy; an update stops beyond 1.5 times this."""
    kl_coef: float = 0.05
    """Weight of the KL to the reference, in reward per nat."""
    kl_penalty: KLPenalty = "reward"
    """Where it goes: subtracted from the reward (k1), or an estimator in the loss."""
    reference_kl_target: float | None = None
    """Nats per episode; `kl_coef` is then only where the adaptation starts."""
    missing_eos_penalty: float = 0.0
    """Subtracted from the reward of an episode that ended by length."""
    loss_normalization: Normalization = "token"

    @property
    def of_checkpoint(self) -> tuple[str, ...]:
        """An adapted `kl_coef`, too."""
        return (*super().of_checkpoint, *(["kl_coef"] if self.reference_kl_target else []))


@dataclass
class Rloo(PolicyGradientArgs):
    """RLOO: REINFORCE with the leave-one-out baseline."""

    algorithm: ClassVar[type[EpisodicAlgorithm]] = agents.RLOO
    reward_to_go: bool = False
    """Weigh a token by the rewards from it on."""


@dataclass
class Reinforce(Rloo):
    """REINFORCE with a group baseline and a KL penalty."""

    algorithm = agents.REINFORCE
    baseline: Baseline = "leave_one_out"


@dataclass
class Grpo(Rloo):
    """GRPO: advantages normalised in the prompt's group, and the clipped loss."""

    algorithm = agents.GRPO
    clip_range: float | None = 0.2
    kl_coef: float = 0.04
    kl_penalty: KLPenalty = "k3"
    scale_advantages: bool = True
    """Divide by the standard deviation of the group."""


@dataclass
class Ppo(PolicyGradientArgs):
    """PPO with a value head, generalised advantages and the clipped loss."""

    algorithm = agents.PPO
    batch_size: int | None = 32
    n_epochs: int = 4
    clip_range: float = 0.2
    """Of the probability ratio."""
    clip_range_vf: float | None = None
    """Of the value, in units of the return; None: no clipping."""
    gae_lambda: float = 0.95
    normalize_advantage: bool = True
    """Whiten the advantages of a minibatch."""
    vf_coef: float = 0.5
    value_function: ValueFunction = "shared"
    """A head on the language model, or on a copy of it."""


@dataclass
class DistributionMatching(TrainArgs):
    """f-DPG: matches a target distribution in an f-divergence."""

    algorithm = agents.DistributionMatching
    target: str = json.dumps(DEFAULT_TARGET)
    """As JSON, such as '{"name": "pointwise", "feature": "keyword"}'."""
    divergence: DivergenceName = "jensen_shannon"
    alpha: float | None = None
    """Of the divergence `alpha`, in [0, 1]."""
    baseline: MatchingBaseline = "leave_one_out"
    proposal: ProposalName = "mixture"
    """Where episodes come from: the policy, half of them from the reference, or the best policy so far."""
    cap: float | None = 10.0
    """Bound on an episode's weighted pseudo-reward."""
    initial_episodes: int = 2048
    """Episodes of the reference that fit the target and start Z."""
    vf_coef: float = 0.5
    """Of the value loss, with `baseline` value."""

    json_arguments: ClassVar[tuple[str, ...]] = ("lora", "target")

    @property
    def of_checkpoint(self) -> tuple[str, ...]:
        """The fitted target, too."""
        return (*super().of_checkpoint, "target")


@dataclass
class SoftQLearning(TrainArgs):
    """Soft Q-learning: logits as Q-values, made consistent along episodes."""

    algorithm = agents.SoftQLearning
    beta: float = 0.1
    """Weight of the KL to the reference, in reward per nat."""
    consistency: Consistency = "trajectory"
    """Of whole episodes, or of every suffix of them."""
    batch_size: int | None = None
    """Episodes in a minibatch; all by default."""
    n_epochs: int = 1
    """Passes over the episodes of an update."""


COMMANDS: dict[str, type[TrainArgs]] = {
    "reinforce": Reinforce,
    "rloo": Rloo,
    "grpo": Grpo,
    "ppo": Ppo,
    "distribution-matching": DistributionMatching,
    "soft-q-learning": SoftQLearning,
}
