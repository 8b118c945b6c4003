"""What the kinds of adapters cost: parameters, bytes on disk, and the time of a training step."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from agents import REINFORCE
from scripts.benchmarks.timing import side_by_side, synchronized
from textgym.arguments import Count
from textgym.language_models.adapters import save_model

KINDS: dict[str, dict[str, Any]] = {
    "LORA": {"peft_type": "LORA", "r": 8},
    "LORA, use_dora": {"peft_type": "LORA", "r": 8, "use_dora": True},
    "ADALORA": {"peft_type": "ADALORA", "total_step": 1000},
    "IA3": {"peft_type": "IA3"},
    "PROMPT_TUNING": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 8},
    "PREFIX_TUNING": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 8},
}


def peft(
    model: str = "tiny", env_id: str = "TextGen-v0", num_envs: Count = 64, repeats: Count = 7, device: str = "cpu"
) -> Iterator[dict[str, Any]]:
    """Time rollouts and gradient steps of every kind of adapters that is trained, per generated token.

    Args:
        model: whose adapters are trained, by REINFORCE with groups of 8.
        env_id: what the rollouts are of.
        num_envs: episodes in a step.
        repeats: counted steps of each; medians are reported.
        device: `cpu` or `cuda`.
    """
    options: dict[str, Any] = {"n_envs": num_envs, "learning_rate": 1e-4, "device": device, "seed": 0}
    agents = {name: REINFORCE("TokenPolicy", env_id, model, peft=kind, **options) for name, kind in KINDS.items()}
    for agent in agents.values():
        agent.learn(1)  # sets up the logger
    first = agents["LORA"]
    episodes = first.with_advantages(first.rollout_buffer.episodes, first.rewards(first.rollout_buffer.episodes))

    def rollout(agent: REINFORCE) -> int:
        return synchronized(agent.device, int(agent.sample_episodes(num_envs).mask.sum()))

    def update(agent: REINFORCE) -> int:
        agent.policy.set_training_mode(True)
        agent.gradient_step(episodes, agent.loss)
        return synchronized(agent.device, int(episodes.mask.sum()))

    rollouts = side_by_side({name: partial(rollout, agent) for name, agent in agents.items()}, repeats)
    updates = side_by_side({name: partial(update, agent) for name, agent in agents.items()}, repeats)
    for name, agent in agents.items():
        yield {
            "benchmark": "peft",
            "model": model,
            "kind": name,
            "arguments": KINDS[name],
            "trained_parameters": sum(p.numel() for p in agent.policy.model.parameters() if p.requires_grad),
            "file_kb": round(file_size(agent.policy.model) / 1000, 1),
            "ratio_to_lora": {
                part: round(timings[name].seconds(agent.device) / timings["LORA"].seconds(agent.device), 2)
                for part, timings in (("rollout", rollouts), ("update", updates))
            },
            "update_tokens_per_second": round(1 / updates[name].seconds(agent.device)),
            "device": device,
        }


def file_size(model: Any) -> int:
    """Bytes of the file of a model's adapters."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder), hub_id="the/model")  # which is then not written
        return (Path(folder) / "adapter_model.safetensors").stat().st_size
