"""Evaluation while an agent trains: in an env of its own, without a trace in the training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback

from textgym.arguments import CheckedArguments, Count, Positive, Seed
from textgym.evaluation import ModelPolicy, Success, evaluate
from textgym.evaluation.history import STEP, EvaluationHistory, numbers
from textgym.sb3.episodic import EpisodicAlgorithm
from textgym.training.random_state import random_state, set_random_state
from textgym.training.reference import Reference
from textgym.training.run import RunFolder

EVALUATIONS, BEST = "evaluations.jsonl", "best"


class EvaluationCallback(CheckedArguments, BaseCallback):
    """Evaluates the policy between rollouts, on the same prompts each time; without it the training would be the same.

    Every evaluation is a line of `evaluations.jsonl` in the run's folder (`textgym.evaluation.Evaluation.to_json`), and
    its numbers are logged as `eval/NAME`, in the row of the rollout that the same policy samples. The best policy so
    far is the checkpoint `best`. A number that has moved far since the first evaluation (entropy, distinct_2, length)
    is a warning.

    Example:
        >>> env = gym.make_vec("TextGen-v0", num_envs=64, autoreset_mode="Disabled", split="test")  # doctest: +SKIP
        >>> agent.learn(100_000, callback=EvaluationCallback(run, env, 10_000, kl_budget=5.0))  # doctest: +SKIP

    Args:
        run: the run's folder.
        eval_env: a vector env of the agent's MDP in autoreset mode `"Disabled"`, not the one that the agent trains in;
            with `split="test"` it has held-out prompts, where their source knows any.
        eval_freq: tokens between two evaluations; the first is made before the training.
        n_eval_episodes: of each evaluation, a multiple of the env's rows.
        metric: the policy with the largest is the best: `"reward"`, `"scorer/NAME"`, `"pass@8"`, or another number of
            the evaluation (`textgym.evaluation.history.numbers`).
        patience: evaluations in a row that are not the best, after which the training ends; None waits for ever.
        kl_budget: nats per text; the training ends where the KL to the reference exceeds it, and no policy beyond it is
            the best.
        success: when a completion is right, for `pass@k`.
        scorers: other ones than the env's, which training does not see.
        samples: texts of each evaluation that are kept.
        seed: of prompts and sampling.
        console: where a line of each evaluation is printed; None prints nothing.

    Raises:
        ValueError: a value that an annotation excludes, an env that does not fit the agent, or what `evaluate` refuses.
    """

    model: EpisodicAlgorithm

    def __init__(
        self,
        run: RunFolder,
        eval_env: Any,
        eval_freq: Count,
        n_eval_episodes: Count = 256,
        *,
        metric: str = "reward",
        patience: Count | None = None,
        kl_budget: Positive | None = None,
        success: Success | None = None,
        scorers: Sequence[Any] = (),
        samples: Count = 4,
        seed: Seed = 0,
        console: Console | None = None,
    ):
        super().__init__()
        self.run, self.eval_env, self.eval_freq, self.n_eval_episodes = run, eval_env, eval_freq, n_eval_episodes
        self.metric, self.patience, self.kl_budget = metric, patience, kl_budget
        self.success, self.scorers, self.samples, self.seed, self.console = success, scorers, samples, seed, console
        self.history = EvaluationHistory(run.path / EVALUATIONS, run.num_timesteps)
        self.stopped_by: str | None = None

    def _on_training_start(self) -> None:
        agent = self.model
        self.reference = agent.reference or Reference(agent.token_model, agent.reference_source, given=False)

    def _on_rollout_start(self) -> None:
        rows = self.history.rows
        if not rows or self.num_timesteps // self.eval_freq > rows[-1][STEP] // self.eval_freq:
            self.evaluate()

    def _on_step(self) -> bool:
        return self.stopped_by is None

    def evaluate_last(self) -> None:
        """Evaluate the policy that a training ended with, unless that was done, and log it."""
        if self.history.rows[-1][STEP] < self.num_timesteps:
            self.evaluate()
            self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
            self.logger.dump(self.num_timesteps)

    def evaluate(self) -> None:
        """Evaluate the policy, keep it if it is the best, and decide whether training ends."""
        agent, before = self.model, random_state([])
        agent.policy.set_training_mode(False)
        policy = ModelPolicy(
            self.eval_env,
            agent.token_model,
            self.reference,
            micro_batch_size=agent.micro_batch_size,
            seed=self.seed,
        )
        try:
            evaluation = evaluate(policy, self.n_eval_episodes, self.samples, self.success, self.scorers)
        finally:
            set_random_state(before, [])
            agent.token_model.reset()  # the rollout begins with nothing decoded
        self.history.add(evaluation, self.num_timesteps)
        values = numbers(self.history.rows[-1])
        for name, value in values.items():
            self.logger.record(f"eval/{name}", value)
        best = self.history.since_best(self.metric) == 0 and not self._beyond_budget(values)
        self.stopped_by = self._reason_to_stop()
        if best:
            agent.save(self.run.path / BEST)
        for sentence in self.history.collapse():
            warnings.warn(f"at {self.num_timesteps} tokens {sentence}", stacklevel=2)
        if self.console is not None:
            told = f"reward {evaluation.reward.value:+.3f} +- {evaluation.reward.standard_error:.3f}"
            if self.metric != "reward":
                told += f"  {self.metric} {values[self.metric]:+.3f}"
            told += f"  KL {evaluation.kl_to_reference.value:.2f} nats" + "  best so far" * best
            self.console.print(f"evaluation at {self.num_timesteps:,} tokens: {told}", soft_wrap=True)

    def _beyond_budget(self, values: dict[str, float]) -> bool:
        return self.kl_budget is not None and values["kl_to_reference"] > self.kl_budget

    def _reason_to_stop(self) -> str | None:
        """Why the training ends, in words; None where it goes on."""
        values = numbers(self.history.rows[-1])
        if self._beyond_budget(values):
            return f"the KL to the reference is {values['kl_to_reference']:.2f} nats, its budget {self.kl_budget:g}"
        if self.patience is not None and (since := self.history.since_best(self.metric)) >= self.patience:
            return f"{self.metric} has not been the best in {since} evaluations"
        return None
