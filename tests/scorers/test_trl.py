"""TRL's contract beyond rewards: None for "does not apply", `log_metric`, `log_extra` and `trainer_state`."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import REINFORCE, DistributionMatching
from tests.conftest import CHARACTERS, count_tokens
from tests.helpers.agents import agent
from textgym.evaluation import evaluate
from textgym.scorers import CosineLength, FunctionScorer, Scorer, ScorerError, Threshold, WeightedSum
from textgym.scorers.trainer import EXTRAS_KEPT, Trainer, TrainerState, take_metrics
from textgym.testing import check_scorer, make_generations

BATCH = make_generations([{"prompt": "2+2=", "task": "math"}, {"prompt": "a", "task": "code"}], ["4", "four"])
NAN = float("nan")


def math(completions, task):
    return [float(text == "4") if t == "math" else None for text, t in zip(completions, task, strict=True)]


def code(completions, task):
    return [len(text) if t == "code" else None for text, t in zip(completions, task, strict=True)]


def short(completions):
    return [-float(len(text)) for text in completions]


def values(scorer, batch=BATCH):
    scores = scorer.evaluate(batch)
    return scores.rewards.tolist(), {name: column.tolist() for name, column in scores.components.items()}


def test_a_sum_leaves_out_what_does_not_apply():
    rewards, components = values(WeightedSum([math, code, short], weights=[2.0, 3.0, 1.0]))
    assert rewards == [2 - 1, 12 - 4]
    np.testing.assert_equal(components, {"math": [1, NAN], "code": [NAN, 4], "short": [-1, -4]})
    assert values(WeightedSum([math, code]))[0] == [1, 4]


def test_what_does_not_apply_is_passed_on_by_every_scorer_of_a_scorer():
    np.testing.assert_equal(values(FunctionScorer(math))[0], [1, NAN])
    np.testing.assert_equal(values(WeightedSum([WeightedSum([math]), short], [1, 1]))[0], [0, -4])
    np.testing.assert_equal(values(WeightedSum([math, math_too()]))[0], [2, NAN])
    np.testing.assert_equal(values(Threshold(math, at=0.5))[1], {"math>=0.5": [1, NAN], "math": [1, NAN]})
    np.testing.assert_equal(values(CosineLength(math, max_tokens=100))[0][1], NAN)


def math_too():
    return FunctionScorer(math, name="math_too")


@pytest.mark.parametrize("none", [[None, NAN], [None, "1"], [None, float("inf")]])
def test_none_excuses_nothing_else(none):
    with pytest.raises(ScorerError, match="scorer 'f' returned .*not a finite float.*, for row 1: 'a' -> 'four'"):
        FunctionScorer(lambda completions: none, name="f").evaluate(BATCH)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_overflow_is_no_part_that_does_not_apply():
    huge = [FunctionScorer(lambda completions: [1e38, 1.0], name=name) for name in "ab"]
    with pytest.raises(ScorerError, match="'weighted_sum' returned nan, not a finite float, for row 0"):
        WeightedSum(huge, weights=[1e300, -1e300]).evaluate(BATCH)


def make(scorer, **kwargs):
    prompts = [{"prompt": "a", "task": "math"}, {"prompt": "b", "task": "none"}]
    return gym.make_vec("TextGen-v0", num_envs=2, scorer=scorer, **(CHARACTERS | {"prompts": prompts}), **kwargs)


@pytest.mark.parametrize("scorer", [math, WeightedSum([math, code])])
def test_an_env_refuses_a_row_to_which_nothing_applies(scorer):
    env = make(scorer)
    env.reset(options={"prompts": [{"prompt": "a", "task": "math"}, {"prompt": "b", "task": "none"}]})
    with pytest.raises(ScorerError, match="has no reward, because no part of it applies, for row 1: 'b' -> ''"):
        env.step(np.array([4, 4]))
    single = gym.make("TextGen-v0", scorer=scorer, **(CHARACTERS | {"prompts": [{"prompt": "b", "task": "none"}]}))
    single.reset()
    with pytest.raises(ScorerError, match="no part of it applies, for row 0"):
        single.step(4)


def test_info_says_nan():
    env = make(WeightedSum([math, short]))
    env.reset(options={"prompts": [{"prompt": "a", "task": "math"}, {"prompt": "b", "task": "none"}]})
    _, rewards, _, _, info = env.step(np.array([4, 4]))
    assert rewards.tolist() == [0, 0]
    np.testing.assert_equal(info["final_info"]["math"], [0, NAN])
    assert info["final_info"]["_math"].tolist() == [True, True]


class Sometimes(Scorer):
    """A class may say None, too."""

    name = "sometimes"

    def score(self, generations):
        return [None if not text else 1.0 for text in generations.completions]


def test_contract():
    check_scorer(WeightedSum([Sometimes(), short]))
    with pytest.raises(AssertionError, match="scorer 'sometimes': the rewards are not finite"):
        check_scorer(Sometimes())


def test_metrics_and_extras():
    trainer = Trainer()
    trainer.log_metric("right", 1)
    trainer.log_metric("right", np.float32(0.5))
    trainer.log_metric("right", torch.tensor(0.0))
    trainer.log_extra("read", ["a", "b"])
    trainer.log_extra("read", range(EXTRAS_KEPT - 1))
    other = Trainer()
    other.log_metric("right", 0.5)
    other.log_metric("wrong", 2.0)
    assert take_metrics([trainer, other]) == {"right": 0.5, "wrong": 2.0}
    assert take_metrics([trainer, other]) == {}
    assert list(trainer.extras["read"])[:2] == ["b", 0] and len(trainer.extras["read"]) == EXTRAS_KEPT
    for wrong in (NAN, "1", None, True):
        with pytest.raises(ValueError, match="the metric 'right' is .*; it must be a finite number"):
            trainer.log_metric("right", wrong)
    with pytest.raises(ValueError, match="the name of a metric is 3"):
        trainer.log_metric(3, 1.0)


def test_a_bare_env_has_no_state_and_keeps_what_is_told():
    def spy(completions, trainer_state, log_metric, log_extra):
        assert trainer_state is None
        log_metric("length", len(completions))
        log_extra("text", completions)
        return [0.0] * len(completions)

    env = make(spy)
    env.reset(seed=0)
    env.step(np.array([4, 4]))
    assert list(env.unwrapped.task.trainer.extras["text"]) == ["", ""]
    assert take_metrics([env.unwrapped.task.trainer]) == {"length": 2}


@pytest.mark.parametrize("cls", [REINFORCE, DistributionMatching])
def test_a_training_tells_its_state_and_logs_what_it_is_told(cls):
    seen = []

    def spy(completion_ids, trainer_state, log_metric):
        seen.append(trainer_state)
        for ids in completion_ids:
            log_metric("length", len(ids))
        return [float(len(ids)) for ids in completion_ids]

    made = agent(cls, scorer=spy)
    made.learn(100)
    states = [state for state in dict.fromkeys(seen) if state is not None]
    assert len(states) == len(made.logger.all["rollout/cache_mib"]) > 1
    assert states[0] == TrainerState(0, 0, 100) and states[0].progress == 0
    assert [state.global_step for state in states] == list(range(len(states)))
    assert 0 < states[1].num_timesteps <= 48 and states[1].progress == states[1].num_timesteps / 100
    lengths = made.logger.all["scorer/length"]
    assert len(lengths) == len(states)
    if cls is REINFORCE:
        np.testing.assert_allclose(lengths, made.logger.all["rollout/reward"], rtol=1e-6)
    measured = evaluate(made, 16)
    assert measured.metrics == {"length": pytest.approx(measured.length.value)}
    assert measured.to_json()["metrics"] == measured.metrics


def for_a(completions, prompts):
    return [
        float(text.count("a")) if prompt == "a" else None for text, prompt in zip(completions, prompts, strict=True)
    ]


def test_statistics_are_of_the_rows_that_apply():
    made = agent(scorer=WeightedSum([for_a, count_tokens], [1.0, 1.0]), env=CHARACTERS | {"prompts": ["a", "b"]})
    made.learn(1)
    episodes, log = made.rollout_buffer.episodes, {name: v[0] for name, v in made.logger.all.items()}
    applies = episodes.prompt_ids == 0
    assert 0 < applies.sum() < len(applies) and log["scorer/for_a/applies"] == applies.double().mean()
    first, second = episodes.components.T
    assert first.isnan().tolist() == (~applies).tolist()
    assert log["rollout/for_a"] == pytest.approx(first[applies].mean().item())
    assert log["scorer/for_a/std"] == pytest.approx(first[applies].std(correction=0).item())
    assert log["scorer/count_tokens/std"] == pytest.approx(second.std(correction=0).item())
    assert log["scorer/count_tokens/applies"] == 1
    torch.testing.assert_close(episodes.rewards.sum(-1), first.nan_to_num() + second)
    measured = evaluate(made, 32)
    assert np.isfinite(measured.components["for_a"].value)


def test_a_target_needs_values_of_every_text():
    made = agent(
        DistributionMatching, scorer=WeightedSum([for_a, count_tokens]), env=CHARACTERS | {"prompts": ["a", "b"]}
    )
    with pytest.raises(ValueError, match="the feature 'for_a' does not apply to all texts"):
        made.learn(1)
