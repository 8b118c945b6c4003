"""The benchmarks of language-model policies: rollouts, updates, and whole training steps.

Each measures TextGym and bare loops on the same model in turn, in one process. Tokens are those of completions, EOS
included, padding not. Lengths are either equal (the limit) or ragged: geometric with a mean near a third of the limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch

from agents.proposals import ProposalName
from scripts.benchmarks.bench import Bench, Lengths
from scripts.benchmarks.timing import side_by_side, synchronized
from textgym.training import Episodes
from textgym.training.terms import with_training_terms


def rollout(
    model: str = "tiny",
    num_envs: tuple[int, ...] = (16, 64),
    new_tokens: tuple[int, ...] = (32,),
    lengths: tuple[Lengths, ...] = ("equal", "ragged"),
    prompt_tokens: int = 8,
    num_generations: int = 4,
    rounds: int = 4,
    device: str = "cpu",
    dtype: str = "float32",
    repeats: int = 5,
) -> Iterator[dict[str, Any]]:
    """Tokens per second of rollouts through the env API, of transformers' generation and of a bare decode loop.

    `generate` waits for the longest text of a batch. `generate_batch` batches continuously; all of a run's texts are
    in its queue from the start.

    `outside_policy` is the share of our time that env, adapter and collection loop take; the rest is the policy.

    Args:
        model: `tiny`, `smollm2-q4`, a path, a hub id, or a shape with random weights (`random-135m`, `random-1.5b`).
        num_envs: rows; also the batch of the bare loops.
        new_tokens: length limits.
        lengths: equal or ragged.
        prompt_tokens: of every prompt.
        num_generations: rows that share a prompt.
        rounds: episodes of each row in a run; the bare loops run as many batches.
        device: `cpu` or `cuda`.
        dtype: `bfloat16` for autocast.
        repeats: runs that are counted.
    """
    for limit in new_tokens:
        for kind in lengths:
            for rows in num_envs:
                bench = Bench(
                    "reinforce",
                    model,
                    rows,
                    num_generations,
                    prompt_tokens,
                    limit,
                    kind,
                    rounds,
                    device,
                    dtype,
                    kl_coef=0.0,
                )
                runs: dict[str, Callable[[], int]] = {
                    "textgym": bench.rollout,
                    "generate": lambda b=bench: b.bare.generate(rounds),  # type: ignore[misc]
                    "bare_loop": lambda b=bench: b.bare.decode(rounds),  # type: ignore[misc]
                }
                if dtype == "float32":  # it decodes in a thread of its own, where autocast is off
                    runs["generate_batch"] = lambda b=bench: b.bare.generate_batch(rounds)  # type: ignore[misc]
                timings = side_by_side(runs, repeats)
                report = bench.report("rollout", timings)
                if kind == "equal":  # every step of a run reads every weight once: the bound that memory sets
                    size = 2 if dtype == "bfloat16" else 4
                    weights = size * sum(p.numel() for p in bench.agent.policy.model.parameters())
                    steps_per_second = report["tokens_per_second_wall"]["textgym"] / rows
                    report["weight_gb_per_second"] = round(weights * steps_per_second / 1e9, 2)
                yield report | {
                    "outside_policy": round(outside_policy(bench), 3),
                    "cache_mib": round(bench.agent.token_model.cache_bytes / 2**20, 1),
                }


def outside_policy(bench: Bench) -> float:
    """The share of a rollout's wall time that is not the policy's."""
    token_model, inside = bench.agent.token_model, 0.0

    def timed(forward: Any) -> Any:
        def run(*args: Any) -> Any:
            nonlocal inside
            start = time.perf_counter()
            result = forward(*args)
            result[0].cpu()  # waits for the device
            inside += time.perf_counter() - start
            return result

        return run

    token_model.forward = timed(token_model.forward)  # type: ignore[method-assign]
    start = time.perf_counter()
    bench.rollout()
    whole = time.perf_counter() - start
    del token_model.forward
    return 1 - inside / whole


def update(
    model: str = "tiny",
    num_envs: tuple[int, ...] = (16, 64),
    lengths: tuple[Lengths, ...] = ("equal", "ragged"),
    prompt_tokens: int = 8,
    num_generations: int = 4,
    new_tokens: int = 32,
    device: str = "cpu",
    dtype: str = "float32",
    repeats: int = 5,
) -> Iterator[dict[str, Any]]:
    """Tokens per second of one gradient step on sampled episodes, and of a bare forward, backward and step.

    `fed` is the number of tokens that go through the model, padding included, over that of real ones, prompts included;
    a prompt that is computed once for all of its completions brings it below 1.

    Args:
        model: as for `rollout`.
        num_envs: episodes in the batch.
        lengths: equal or ragged.
        prompt_tokens: of every prompt.
        num_generations: episodes that share a prompt.
        new_tokens: the length limit.
        device: `cpu` or `cuda`.
        dtype: `bfloat16` for autocast.
        repeats: runs that are counted.
    """
    for kind in lengths:
        for rows in num_envs:
            groups = (num_generations, prompt_tokens, new_tokens)
            bench = Bench("reinforce", model, rows, *groups, kind, 1, device, dtype, kl_coef=0.0)
            agent = bench.agent
            episodes = agent.sample_episodes(rows)
            episodes = agent.with_advantages(episodes, agent.rewards(episodes))
            agent.policy.set_training_mode(True)
            tokens = int(episodes.mask.sum())
            optimizer = torch.optim.Adam(bench.bare.model.parameters(), lr=1e-6)

            def ours(agent: Any = agent, episodes: Any = episodes, tokens: int = tokens) -> int:
                agent.gradient_step(episodes, agent.loss)
                return synchronized(agent.device, tokens)

            def bare(bench: Any = bench, episodes: Any = episodes, optimizer: Any = optimizer) -> int:
                return synchronized(bench.agent.device, bench.bare.train(episodes.rows, optimizer))

            timings = side_by_side({"textgym": ours, "bare": bare}, repeats)
            fed, real = tokens_fed(agent, episodes), int(episodes.row_lengths.sum())
            flops = 6 * sum(p.numel() for p in agent.policy.model.parameters()) * fed / tokens
            rate = bench.report("update", timings)
            yield rate | {
                "fed": round(fed / real, 3),
                "tflops": round(flops * rate["tokens_per_second_wall"]["textgym"] / 1e12, 3),
            }


def tokens_fed(agent: Any, episodes: Episodes) -> int:
    """Tokens that go through the model in one pass over the episodes, padding included."""
    counts: list[int] = []
    embeddings = agent.policy.model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda module, args, output: counts.append(args[0].numel()))
    with_training_terms(agent.token_model, episodes, None)
    handle.remove()
    return sum(counts)


def train(
    algorithm: str = "grpo",
    model: str = "tiny",
    num_envs: int = 16,
    lengths: tuple[Lengths, ...] = ("equal", "ragged"),
    prompt_tokens: tuple[int, ...] = (8,),
    num_generations: int = 4,
    new_tokens: int = 32,
    kl_coef: float = 0.0,
    proposal: ProposalName = "mixture",
    bare: bool = True,
    device: str = "cpu",
    dtype: str = "float32",
    repeats: int = 8,
) -> Iterator[dict[str, Any]]:
    """Tokens per second of whole training steps (a rollout, its evaluation and one epoch), and of bare ones.

    A bare step is transformers' `generate` and a forward and backward pass on the same number of episodes, plus one
    forward pass where kl_coef asks for a reference. A step of DPO is one on pairs that are there already; the bare one
    is a forward pass for the reference and a forward and backward pass, on the same texts.

    Args:
        algorithm: `reinforce`, `rloo`, `grpo`, `ppo`, `distribution-matching` or `dpo`; the last two always keep a
            reference.
        model: as for `rollout`.
        num_envs: episodes of a step; pairs are half as many.
        lengths: equal or ragged.
        prompt_tokens: of every prompt.
        num_generations: episodes that share a prompt; of pairs, 4 do.
        new_tokens: the length limit.
        kl_coef: weight of the KL to the reference; 0 keeps no reference.
        proposal: where distribution-matching samples; a bare step samples from the policy.
        bare: measure bare steps too; without, the peak memory is that of TextGym alone.
        device: `cpu` or `cuda`.
        dtype: `bfloat16` for autocast.
        repeats: steps that are counted.
    """
    options: dict[str, Any] = {"kl_coef": kl_coef} | ({"n_epochs": 1, "batch_size": None} if algorithm == "ppo" else {})
    if matching := algorithm == "distribution-matching":
        options = {"target": {"name": "rlhf", "beta": 10.0}, "proposal": proposal, "initial_episodes": num_envs}
    if pairs := algorithm == "dpo":
        options = {}
    for tokens, kind in product(prompt_tokens, lengths):
        sizes = (num_envs, num_generations, tokens, new_tokens)
        bench = Bench(algorithm, model, *sizes, kind, 1, device, dtype, **options)
        agent = bench.agent
        _, callback = agent._setup_learn(10**9, None)

        def ours(agent: Any = agent, callback: Any = callback) -> int:
            agent.collect_rollouts(agent.env, callback, agent.rollout_buffer, agent.n_steps)
            agent.train()
            return synchronized(agent.device, int(agent.rollout_buffer.episodes.mask.sum()))

        runs: dict[str, Callable[[], int]] = {"textgym": ours}
        if bare:
            optimizer = torch.optim.Adam(bench.bare.model.parameters(), lr=1e-6)
            sampled = None if pairs else agent.sample_episodes(num_envs)

            def plain(bench: Any = bench, sampled: Any = sampled, optimizer: Any = optimizer) -> int:
                generated = 0 if pairs else bench.bare.generate(1)
                rows = (bench.agent.rollout_buffer.episodes if pairs else sampled).rows
                trained = bench.bare.train(rows, optimizer, passes=1 + bool(kl_coef or matching or pairs))
                return synchronized(bench.agent.device, generated or trained)

            runs["bare"] = plain
        yield bench.report("train", side_by_side(runs, repeats, warm_up=2)) | {
            "algorithm": algorithm,
            **({"proposal": proposal} if matching else {} if pairs else {"kl_coef": kl_coef}),
        }
