"""What a benchmark of a model needs: an agent that plays with it, and the bare loops on the same prompts."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import torch
from stable_baselines3.common.logger import configure

import textgym
from agents import DPO, GRPO, PPO, REINFORCE, RLOO, DistributionMatching
from agents.offline import OfflineAlgorithm
from scripts.benchmarks.bare import SHAPES, BareLoops, end_at_random, model_of, random_pairs, round_trip_prompts
from scripts.benchmarks.timing import Timing, rates
from textgym.language_models import load_tokenizer
from textgym.sb3.collection import collect
from textgym.scorers import Generations
from textgym.tokenizers import from_pretrained

Lengths = Literal["equal", "ragged"]
AGENTS: dict[str, Any] = {
    "reinforce": REINFORCE,
    "rloo": RLOO,
    "grpo": GRPO,
    "ppo": PPO,
    "distribution-matching": DistributionMatching,
    "dpo": DPO,
}


class CountOfToken(textgym.Scorer):
    """How often one token occurs in the completion."""

    name = "count"

    def score(self, generations: Generations) -> Any:
        """(n,) counts."""
        return (generations.observations[:, generations.mdp.max_prompt_tokens :] == 42).sum(-1)


class Bench:
    """A model, an agent that plays with it, and the bare loops on the same prompts."""

    def __init__(
        self,
        algorithm: str,
        model: str,
        num_envs: int,
        num_generations: int,
        prompt_tokens: int,
        new_tokens: int,
        lengths: Lengths,
        rounds: int,
        device: str,
        dtype: str,
        **kwargs: Any,
    ):
        tokenizer = "tiny" if model in SHAPES else model
        prompts = round_trip_prompts(from_pretrained(load_tokenizer(tokenizer)), prompt_tokens, 64)
        env = gym.make_vec(
            "TextGen-v0",
            num_envs=num_envs,
            num_generations=num_generations,
            autoreset_mode="Disabled",
            tokenizer=tokenizer,
            prompts=prompts,
            scorer=CountOfToken(),
            max_prompt_tokens=prompt_tokens,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens if lengths == "equal" else 0,
        )
        loaded = model_of(model, device)
        mdp = env.unwrapped.mdp  # type: ignore[attr-defined]
        if lengths == "ragged":
            end_at_random(loaded, mdp.eos_token_ids[0], 3 / new_tokens)
        offline = issubclass(AGENTS[algorithm], OfflineAlgorithm)
        kwargs |= {"batch_size": num_envs // 2} if offline else {"episodes_per_update": rounds * num_envs}
        kwargs |= {"learning_rate": 1e-6, "dtype": dtype, "device": device, "seed": 0}
        self.agent = AGENTS[algorithm]("TokenPolicy", env, loaded, **kwargs)
        self.agent.set_logger(configure(None, []))
        rows = torch.from_numpy(env.reset(seed=0)[0][:, :prompt_tokens])
        self.bare = BareLoops(loaded, mdp, rows.to(self.agent.device), dtype)
        if offline:
            self.agent.data = random_pairs(mdp, rows.numpy(), lengths == "ragged")
        self.rounds = rounds
        self.facts = {
            "model": model,
            "device": device,
            "dtype": dtype,
            "threads": torch.get_num_threads(),
            "num_envs": num_envs,
            "num_generations": num_generations,
            "prompt_tokens": prompt_tokens,
            "new_tokens": new_tokens,
            "lengths": lengths,
            "rounds": rounds,
        }

    def rollout(self) -> int:
        """Episodes through the env API; returns the number of tokens."""
        assert self.agent.env is not None
        self.agent.policy.set_training_mode(False)
        finished = collect(self.agent.env, self.agent.token_model, self.rounds, self.agent.component_names)
        assert finished is not None
        return int((finished["rows"][:, -self.agent.mdp.max_new_tokens :] != self.agent.mdp.pad_id).sum())

    def report(self, benchmark: str, timings: dict[str, Timing]) -> dict[str, Any]:
        """Tokens per second of everything that was timed, and ours over each of the others."""
        return {"benchmark": benchmark, **self.facts, **rates(timings, self.agent.device)}
