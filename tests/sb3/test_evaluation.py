"""Evaluation while training leaves no trace in it, and decides rightly where the truth is known."""

import json
from functools import partial

import gymnasium as gym
import pytest
import torch

from agents import DPO, REINFORCE, DistributionMatching
from tests.helpers.runs import At, fail, make_env, result, train
from textgym.evaluation import Success
from textgym.evaluation.history import EvaluationHistory, numbers
from textgym.exact import TokenTree
from textgym.sb3.evaluation import BEST, EVALUATIONS, EvaluationCallback
from textgym.sb3.run import RunCheckpoints, train_run
from textgym.training.run import open_run

pytestmark = pytest.mark.filterwarnings("ignore:at .* tokens")  # small policies do collapse
SMALL = {"eval_freq": 100, "n_eval_episodes": 16}


def evaluating(run, **kwargs):
    return EvaluationCallback(run, make_env(), **(SMALL | kwargs))


def lines(out):
    return [json.loads(line) for line in (out / EVALUATIONS).read_text().splitlines()]


@pytest.mark.parametrize("cls", [REINFORCE, DistributionMatching, DPO])
def test_the_training_is_the_same_bit_for_bit(tmp_path, cls):
    train(tmp_path / "plain", cls)
    train(tmp_path / "evaluated", cls, callbacks=[evaluating])
    (sums, rows), (with_sums, with_rows) = result(tmp_path / "plain"), result(tmp_path / "evaluated")
    assert with_sums == sums
    assert [{name: row[name] for name in rows[0]} for row in with_rows] == rows
    evaluations = lines(tmp_path / "evaluated")
    logged = [float(row["eval/reward"]) for row in with_rows if row["eval/reward"]]
    assert len(evaluations) >= 4 and logged == [row["reward"]["value"] for row in evaluations]


def test_a_killed_training_goes_on_with_the_same_evaluations(tmp_path):
    train(tmp_path / "whole", callbacks=[evaluating])
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", callbacks=[evaluating, At(30, fail(KeyboardInterrupt))])
    assert 0 < len(lines(tmp_path / "cut")) < len(lines(tmp_path / "whole"))
    train(tmp_path / "cut", resume=True, callbacks=[evaluating])
    assert result(tmp_path / "cut") == result(tmp_path / "whole")
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


def toy_env(rows=512, **kwargs):
    return gym.make_vec("TextGenToy-v0", num_envs=rows, autoreset_mode="Disabled", **kwargs)


class Truth(EvaluationCallback):
    """Notes the exact reward and KL at each evaluation."""

    def evaluate(self):
        tree, env = TokenTree.of(toy_env(1)), toy_env(1).unwrapped
        table, reference = self.model.policy.model.table.detach().double(), torch.tensor(env.reference_logits)
        reward = float(tree.expectation(table, tree.scores(env)["reward"]))
        self.truth = [*getattr(self, "truth", []), (self.num_timesteps, reward, float(tree.kl(table, reference)))]
        super().evaluate()


def toy_training(out, learning_rate, total=40_000, **kwargs):
    """REINFORCE on the toy, evaluated; the callback, and the agent."""
    with open_run(out, resume=False) as run:
        callback = Truth(run, toy_env(), 2_000, 2048, **kwargs)
        agent = REINFORCE("TokenPolicy", "TextGenToy-v0", learning_rate=learning_rate, kl_coef=0, seed=0, device="cpu")
        train_run(agent, total, RunCheckpoints(run), callback)
        return callback, agent


def test_what_is_kept_is_the_best_and_evaluations_are_right(tmp_path):
    callback, agent = toy_training(tmp_path, learning_rate=0.1, total=12_000, patience=50)
    rows = callback.history.rows
    for (step, reward, kl), row in zip(callback.truth, rows, strict=True):
        assert row["num_timesteps"] == step
        for exact, name in ((reward, "reward"), (kl, "kl_to_reference")):
            estimate = row[name]
            assert abs(estimate["value"] - exact) < 4 * estimate["standard_error"] + 1e-9
    best = REINFORCE.load(tmp_path / BEST, toy_env(64, num_generations=8))
    kept = callback.truth[[step for step, *_ in callback.truth].index(best.num_timesteps)]
    assert kept[1] > max(reward for _, reward, _ in callback.truth) - 0.02 > callback.truth[0][1] + 0.2


def test_a_training_ends_where_the_exact_kl_exceeds_its_budget(tmp_path):
    callback, agent = toy_training(tmp_path, learning_rate=0.1, kl_budget=0.5)
    assert [kl > 0.5 for *_, kl in callback.truth] == [False] * (len(callback.truth) - 1) + [True]
    assert agent.num_timesteps < 40_000 and "its budget 0.5" in callback.stopped_by
    assert REINFORCE.load(tmp_path / BEST, toy_env(64, num_generations=8)).num_timesteps == callback.truth[-2][0]


def test_a_training_ends_where_nothing_gets_better(tmp_path):
    callback, agent = toy_training(tmp_path, learning_rate=0.0, patience=3)
    assert len(callback.truth) == 4 and "in 3 evaluations" in callback.stopped_by


def test_numbers_that_fall_are_named(tmp_path):
    with pytest.warns(UserWarning, match=r"entropy is 0\.\d+, 0\.\d+ times what it was in the first evaluation"):
        toy_training(tmp_path, learning_rate=3.0, total=10_000)


def test_the_last_policy_is_evaluated_once(tmp_path):
    callback, agent = toy_training(tmp_path, learning_rate=0.01, total=3_000)
    before = len(callback.history.rows)
    callback.evaluate_last()
    callback.evaluate_last()
    assert len(callback.history.rows) == before + 1
    assert callback.history.rows[-1]["num_timesteps"] == agent.num_timesteps


def test_success_and_other_scorers_can_decide(tmp_path):
    env = partial(toy_env, num_generations=4)
    with open_run(tmp_path, resume=False) as run:
        success = Success((1, 4), 4, at_least=0.5)
        callback = EvaluationCallback(run, env(64), 500, 64, metric="pass@4", success=success, scorers=["repetition"])
        agent = REINFORCE("TokenPolicy", "TextGenToy-v0", seed=0, device="cpu")
        train_run(agent, 1_000, RunCheckpoints(run), callback)
    assert {"pass@1", "pass@4", "scorer/repetition"} <= set(numbers(callback.history.rows[0]))


def test_a_metric_that_there_is_not_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no number 'rewards' in the evaluation; it has \[.*'reward'"):
        toy_training(tmp_path, learning_rate=0.01, metric="rewards")


@pytest.mark.parametrize("line", ["[]", "{}", "null", '{"num_timesteps": 3}', "{"])
def test_a_damaged_file_is_named_with_its_line(tmp_path, line):
    callback, _ = toy_training(tmp_path / "run", learning_rate=0.01, total=500)
    path = tmp_path / "run" / EVALUATIONS
    good = path.read_text()
    path.write_text(good + line + "\n")
    with pytest.raises(ValueError, match=f"evaluations.jsonl', line {len(good.splitlines()) + 1}, is no evaluation"):
        EvaluationHistory(path, 10**9)
    path.write_text(good + line)  # a last line that was cut
    assert EvaluationHistory(path, 10**9).rows == callback.history.rows
