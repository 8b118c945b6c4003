"""The losses that `scripts/gradients.py` judges, table by table."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import gymnasium as gym

from agents import GRPO, PPO, REINFORCE, RLOO
from agents.policy_gradient import PolicyGradient
from scripts.experiments.gradients import Case
from scripts.experiments.losses import agent_loss, step_baseline, top_p, where_rewards_differ, with_kl, without_eos
from scripts.experiments.torchrl_losses import torchrl_critic_loss, torchrl_group_loss
from scripts.experiments.trl_losses import trl_loss
from textgym.exact import AnswerTree, Objective, TokenTree
from textgym.exact.gradients import Loss
from textgym.tokenizers import make_tokenizer
from textgym.training.updates import Normalization

FAMILY: dict[str, tuple[type[PolicyGradient], dict[str, Any]]] = {
    "REINFORCE, no baseline": (REINFORCE, {"baseline": "none"}),
    "REINFORCE, mean of the group": (REINFORCE, {"baseline": "mean"}),
    "RLOO": (RLOO, {}),
    "RLOO, reward-to-go": (RLOO, {"reward_to_go": True}),
    "truncated importance sampling": (
        RLOO,
        {"importance_sampling_clip_max": 5.0, "importance_sampling_level": "product"},
    ),
    "PPO, lambda 1": (PPO, {"gae_lambda": 1.0, "normalize_advantage": False}),
    "GRPO": (GRPO, {}),
    "GRPO, not scaled": (GRPO, {"scale_rewards": "none"}),
    "clip-higher": (GRPO, {"clip_range_high": 0.28}),
    "two-sided clip": (GRPO, {"clip_range_high": 0.28, "delta": 4.0}),
    "GSPO": (GRPO, {"importance_sampling_level": "sequence", "clip_range": 3e-4, "clip_range_high": 4e-4}),
    "CISPO": (GRPO, {"clip_range": None, "importance_sampling_clip_max": 5.0}),
}
"""Twelve losses, as arguments of the agents."""
OPTIONS: dict[str, tuple[type[PolicyGradient], dict[str, Any]]] = {
    "RAFT, the best of the group": (REINFORCE, {"keep_best": 1}),
    "RLOO, unlikeliness": (RLOO, {"unlikeliness_coef": 0.25}),
    "RLOO, texts without EOS left out": (RLOO, {"mask_truncated_completions": True}),
    "RLOO, texts without EOS penalised": (RLOO, {"missing_eos_penalty": 0.5}),
    "PPO, whitened": (PPO, {"gae_lambda": 1.0}),
}
"""Options of the agents that select episodes, or change what is paid."""
PENALTIES = "reward", "k2", "k3", "plain k3"
"""Places and estimators of the KL penalty; plain k3 is not multiplied by the ratio, as no agent here has it."""
NORMALIZATIONS: tuple[Normalization, ...] = "sum", "sequence", "token"
"""What makes one number of the losses of tokens; `"constant"` is `"sum"` but for a factor."""

TRANSFORMER = (
    *(f"{name} | reward" for name in ("RLOO", "PPO, lambda 1", "GRPO", "GSPO")),
    *(f"{name} | {penalty}" for name in ("RLOO", "GRPO") for penalty in ("k2", "plain k3")),
)
"""Losses and penalties that are judged on a transformer's texts."""
TRL: tuple[dict[str, Any], ...] = (
    {},
    {"loss_type": "grpo"},
    {"loss_type": "bnpo"},
    {"loss_type": "dr_grpo"},
    {"loss_type": "dr_grpo", "scale_rewards": "none"},
    {"loss_type": "dr_grpo", "scale_rewards": "none", "use_bias_correction_kl": False},
    {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    {"loss_type": "cispo"},
    {"loss_type": "cispo", "epsilon_high": 5.0},
    {"loss_type": "sapo"},
    {"loss_type": "vespo"},
)
"""Arguments of TRL's `GRPOConfig`; none are its defaults."""
TORCHRL: dict[str, dict[str, Any]] = {
    "GRPOLoss | loss": {},
    "GRPOLoss, aggregation='prompt_mean' | loss": {"aggregation": "prompt_mean"},
    "CISPOLoss | loss": {"algorithm": "CISPOLoss"},
    "GRPOLoss | reward": {"kl": "reward"},
    "GRPOLoss, trajectory_return='sum' | reward": {"kl": "reward", "trajectory_return": "sum"},
}
"""Losses of TorchRL that compare the episodes of a group, and the place of the penalty."""
LIBRARIES = {"trl": "1.16.0", "torchrl": "0.14.1"}
"""Other libraries whose losses are judged where they are installed, and the version that the page is of."""


def family(objective: Objective, size: int) -> Iterator[Case]:
    """Each loss with each penalty and each normalisation."""
    for name in FAMILY:
        for penalty in PENALTIES:
            for normalization in NORMALIZATIONS:
                loss = family_loss(name, objective, size, penalty, normalization)
                yield Case("family", f"{name} | {penalty} | {normalization}", loss, size)


def options(objective: Objective, size: int) -> Iterator[Case]:
    """`OPTIONS`, with the penalty in the reward."""
    for name, (cls, kwargs) in OPTIONS.items():
        yield Case("options", name, agent_loss(cls, objective, size, loss_normalization="sum", **kwargs), size)


def transformer(size: int) -> Iterator[tuple[Objective, Case]]:
    """Some losses on texts of a transformer: up to three words of two behind the opening of a review, by `tiny`."""
    tokenizer = make_tokenizer("tiny")
    words = [tokenizer.encode(word)[0] for word in (" good", " bad")]
    answers = AnswerTree(
        gym.make("TextGen-v0", allowed_tokens=[*words, *tokenizer.eos_token_ids], max_new_tokens=3), prompt_ids=[0]
    )
    tree = TokenTree(num_tokens=2, max_new_tokens=3)  # the same outcomes in the same order
    reference, _ = tree.policy_of(answers.log_probs("tiny")[0])
    objective = Objective(tree, reference, answers.scores()["reward"][0], beta=0.2)
    for name in TRANSFORMER:
        loss, penalty = name.split(" | ")
        yield objective, Case("transformer", name, family_loss(loss, objective, size, penalty, "sum"), size)


def family_loss(name: str, objective: Objective, size: int, penalty: str, normalization: Normalization) -> Loss:
    """One of `FAMILY` with a penalty and a normalisation."""
    cls, kwargs = FAMILY[name]
    kwargs = kwargs | {"loss_normalization": normalization}
    if penalty != "plain k3":
        return agent_loss(cls, objective, size, kl_penalty=penalty, **kwargs)
    return with_kl(agent_loss(cls, objective, size, kl_coef=0.0, **kwargs), objective.beta, "k3", normalization)


def critics(objective: Objective) -> Iterator[Case]:
    """PPO with a critic that knows everything, and with one that knows nothing; single episodes, not whitened."""
    kwargs: dict[str, Any] = {"normalize_advantage": False, "loss_normalization": "sum"}
    for perfect in (True, False):
        for gae_lambda in (1.0, 0.95, 0.5, 0.0):
            loss = agent_loss(PPO, objective, 1, perfect, gae_lambda=gae_lambda, **kwargs)
            yield Case("critics", f"{'perfect' if perfect else 'none'} | {gae_lambda:g}", loss)


def faults(objective: Objective, size: int) -> Iterator[Case]:
    """Known faults, each behind what is right."""
    beta, eos = objective.beta, objective.tree.num_tokens
    discounted = Objective(objective.tree, objective.reference_logits, objective.rewards, beta, 0.8)

    def rloo(of: Objective = objective, **kwargs: Any) -> Loss:
        return agent_loss(RLOO, of, size, loss_normalization="sum", **kwargs)

    reward_alone, right = rloo(kl_coef=0.0), rloo()
    yield Case("faults", "right: RLOO, KL in the reward", right, size)
    yield Case("faults", "k1 as a loss", with_kl(reward_alone, beta, "k1"), size)
    yield Case("faults", "k2 as a loss", with_kl(reward_alone, beta, "k2"), size)
    yield Case("faults", "k3 as a loss", with_kl(reward_alone, beta, "k3"), size)
    yield Case("faults", "groups of equal rewards left out", where_rewards_differ(right), size)
    yield Case(
        "faults",
        "groups of equal rewards left out, k2 as a loss",
        where_rewards_differ(with_kl(reward_alone, beta, "k2")),
        size,
    )
    yield Case(
        "faults", "mean baseline, k2 as a loss", family_loss("GRPO, not scaled", objective, size, "k2", "sum"), size
    )
    yield Case("faults", "reward-to-go minus the mean of the step", step_baseline(beta), size)
    yield Case("faults", "EOS taken for padding", without_eos(right, eos), size)
    yield Case("faults", "top-p 0.8 samples, scored without it", right, size, sampling=top_p)
    yield Case("faults", "right: gamma 0.8, whole returns", rloo(discounted), size, gamma=0.8)
    yield Case("faults", "gamma 0.8, reward-to-go", rloo(discounted, reward_to_go=True), size, gamma=0.8)


def trl(objective: Objective, size: int) -> Iterator[Case]:
    """TRL's own losses, where it is installed."""
    if "trl" not in installed():
        return
    yield Case("trl", "RLOOTrainer", trl_loss("RLOO", objective, size), size)
    for config in TRL:
        arguments = ", ".join(f"{name}={value!r}" for name, value in config.items())
        name = f"GRPOTrainer{', ' if config else ''}{arguments}"
        yield Case("trl", name, trl_loss("GRPO", objective, size, **config), size)


def torchrl(objective: Objective, size: int) -> Iterator[Case]:
    """TorchRL's own losses, where it is installed."""
    if "torchrl" not in installed():
        return
    for name, config in TORCHRL.items():
        loss = torchrl_group_loss(objective, size, **config)
        # grouping takes seconds for each gradient, where it depends on the policy
        yield Case("torchrl", name, loss, size, followed="kl" not in config)
    for algorithm in ("ClipPPOLoss", "ReinforceLoss"):
        for perfect in (True, False):
            name = f"{algorithm}, {'perfect' if perfect else 'no'} critic | reward"
            yield Case("torchrl", name, torchrl_critic_loss(algorithm, objective, perfect))


def installed() -> dict[str, str]:
    """The versions of those of `LIBRARIES` that are installed."""
    return {name: version(name) for name in LIBRARIES if find_spec(name)}


def batches(objective: Objective) -> Iterator[Case]:
    """What a batch of 64 episodes does, 8 groups of 8, on an objective too large to enumerate groups of."""
    losses: list[tuple[type[PolicyGradient], str, dict[str, Any]]] = [
        (RLOO, "RLOO, sum", {"loss_normalization": "sum"}),
        (RLOO, "RLOO, token", {}),
        (RLOO, "RLOO, sequence", {"loss_normalization": "sequence"}),
        (GRPO, "GRPO, token", {}),
        (GRPO, "GRPO, k3 in the loss, sequence", {"kl_penalty": "k3", "loss_normalization": "sequence"}),
        (PPO, "PPO, token", {}),
    ]
    for cls, name, kwargs in losses:
        yield Case("batches", name, agent_loss(cls, objective, 8, **kwargs), 8, num_groups=8)


def alone(objective: Objective) -> Iterator[Case]:
    """Losses of single episodes, whose fixed points are exact however large the objective is."""
    for penalty in PENALTIES:
        loss = family_loss("REINFORCE, no baseline", objective, 1, penalty, "sum")
        yield Case("alone", penalty, loss)
    loss = family_loss("REINFORCE, no baseline", objective, 1, "reward", "sequence")
    yield Case("alone", "reward, sequence", loss)
