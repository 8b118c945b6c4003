"""What `tests/training/test_distributed.py` runs under torchrun: each process trains its share."""

import sys
from pathlib import Path

import gymnasium as gym
import torch
import torch.distributed as dist
from stable_baselines3.common.logger import configure

from agents import (
    DPO,
    GRPO,
    PPO,
    REINFORCE,
    RLOO,
    SFT,
    ContrastiveLM,
    DistributionMatching,
    OnlineDPO,
    RewardModelTrainer,
    SoftQLearning,
)
from tests.conftest import CHARACTERS, PAIRS, count_tokens, small_llama
from tests.helpers.reward_models import encoder
from textgym.training.distributed import rank

ROWS = 8
"""Of one process; two have 16."""
AGENTS = {
    "reinforce": (REINFORCE, {"kl_coef": 0.1, "ent_coef": 0.01}),
    "grpo in micro-batches": (GRPO, {"micro_batch_size": 3, "loss_normalization": "sequence"}),
    "rloo with a curriculum": (RLOO, {"curriculum": "difficulty"}),
    "ppo": (PPO, {"batch_size": 5, "n_epochs": 2, "reference_kl_target": 0.1}),
    "ppo with adapters": (PPO, {"lora": {"r": 2}, "policy_kwargs": {"value_function": "separate"}}),
    "f-dpg": (DistributionMatching, {"target": {"name": "rlhf", "beta": 1.0}, "initial_episodes": 32}),
    "soft q": (SoftQLearning, {"beta": 0.5}),
    "online dpo": (OnlineDPO, {}),
    "dpo": (DPO, {"dataset": PAIRS, "batch_size": 3}),
    "sft, a text for two": (SFT, {"dataset": PAIRS, "batch_size": 1}),
    "contrastive": (ContrastiveLM, {"dataset": PAIRS, "batch_size": 3}),
}


def make_agent(name, rows):
    """An agent, which is the same in every process."""
    cls, kwargs = AGENTS[name]
    env = gym.make_vec(
        "TextGen-v0",
        num_envs=rows,
        num_generations=4,
        autoreset_mode="Disabled",
        **CHARACTERS,
        scorer=count_tokens,
    )
    kwargs = {"learning_rate": 0.1, "seed": 0, "device": "cpu"} | kwargs
    # Adam would make much of rounding where a gradient is nearly 0
    kwargs["policy_kwargs"] = kwargs.get("policy_kwargs", {}) | {"optimizer_class": torch.optim.SGD}
    agent = cls("TokenPolicy", env, small_llama(), **kwargs)
    agent.set_logger(configure(None, []))
    return agent


def one_step(agent):
    """A rollout and an update; what the update was made of."""
    seen = {}
    process_rollout, start = agent.process_rollout, getattr(agent, "start", None)

    def noted(episodes):
        seen["episodes"] = episodes
        return process_rollout(episodes)

    def noted_start(episodes=None):
        if not agent.partition.counts.any():
            start(episodes)
            seen["partition"] = agent.partition.tensors()

    agent.process_rollout = noted
    if start is not None:
        agent.start = noted_start
    _, callback = agent._setup_learn(10**6, None)
    agent.collect_rollouts(agent.env, callback, agent.rollout_buffer, agent.n_steps)
    torch.manual_seed(1)  # of the minibatches
    agent.train()
    del agent.process_rollout
    logged = {name: float(value) for name, value in agent.logger.name_to_value.items() if name.startswith("train/")}
    parameters = {name: p.detach().clone() for name, p in agent.policy.named_parameters()}
    seen |= {"kept": agent.extra_tensors()}
    return seen | {"parameters": parameters, "logged": logged, "num_timesteps": agent.num_timesteps}


def reward_model_steps():
    """Two epochs of a reward model from pairs and ties, in batches of an odd size."""
    pairs = [{"chosen": "a" * n + "b", "rejected": "b" * m} for n in range(1, 5) for m in (2, 3)]
    pairs += [{"chosen": "ab", "rejected": "ba", "tie": True}] * 3
    model, tokenizer = encoder()
    options = {"seed": 0, "device": "cpu", "batch_size": 5, "micro_batch_size": 2, "learning_rate": 1e-2}
    trainer = RewardModelTrainer(model, pairs, tokenizer=tokenizer, **options)
    trainer.optimizer = torch.optim.SGD(trainer.optimizer.param_groups)
    trainer.set_logger(configure(None, []))
    trainer.learn(2, log_interval=None)
    parameters = {str(i): p.detach().clone() for i, p in enumerate(trainer._trained())}
    return {"parameters": parameters, "num_tokens": trainer.num_tokens}


def unseeded_weights():
    """The weights of an agent, value head and reference included, whose processes drew them each for themselves."""
    torch.manual_seed(rank())
    env = gym.make_vec("TextGen-v0", num_envs=ROWS, num_generations=4, autoreset_mode="Disabled", **CHARACTERS)
    agent = PPO("TokenPolicy", env, small_llama(seed=rank()), device="cpu")
    agent.set_logger(configure(None, []))
    agent.learn(1)
    models = {"policy": agent.policy, "reference": agent.reference.model}
    return {f"{of}.{n}": p.detach().clone() for of, model in models.items() for n, p in model.named_parameters()}


def main(out):
    dist.init_process_group("gloo")
    torch.save(reward_model_steps(), out / f"reward model-{rank()}.pt")
    torch.save(unseeded_weights(), out / f"unseeded-{rank()}.pt")
    for name in AGENTS:
        found = one_step(make_agent(name, ROWS))
        torch.save(found, out / f"{name}-{rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
