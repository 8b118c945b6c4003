"""`scripts/sample.py`: texts, rewards, pinned prompts."""

import json
import re

import gymnasium as gym
import numpy as np
import pytest

from scripts.sample import Args, main, samples, samples_towards
from tests.scripts.test_evaluate import save_model
from textgym.matching import RLHF

ENV = {"env_id": "TextGenChars-v0", "device": "cpu", "env_kwargs": '{"max_prompt_tokens": 4}'}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), seed=0)


def test_rewards_are_the_scorers(model):
    found = list(samples(Args(model=model, n=32, **ENV)))
    assert len(found) == 32 and {sample.prompt for sample in found} == {""}
    assert len({sample.reward for sample in found}) > 2
    for sample in found:
        assert re.fullmatch("[abcd]{0,8}", sample.completion)
        assert sample.reward == pytest.approx(2 * sample.completion.count("ab") / max(len(sample.completion), 1))


def test_prompts_are_pinned_in_order(model):
    found = list(samples(Args(model=model, n=2, prompt=["abc", "d"], **ENV)))
    assert [sample.prompt for sample in found] == ["abc", "abc", "d", "d"]


def test_deterministic_gives_one_text_per_prompt(model):
    def texts(seed, deterministic):
        return {s.completion for s in samples(Args(model=model, n=8, seed=seed, deterministic=deterministic, **ENV))}

    assert len(texts(0, True)) == 1 and texts(0, True) == texts(1, True)
    assert len(texts(0, False)) > 1 and texts(0, False) == texts(0, False) != texts(1, False)


def test_output_for_people_and_machines(model, capsys):
    main(Args(model=model, n=3, prompt=["ab"], **ENV))
    people = capsys.readouterr().out.splitlines()
    main(Args(model=model, n=3, prompt=["ab"], jsonl=True, **ENV))
    machines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert people == [f"{s['reward']:+.3f} [{s['prompt']}]{s['completion']}" for s in machines]
    assert len(people) == 3


def test_a_scorer_by_name(model):
    for sample in samples(Args(model=model, n=4, scorer='{"name": "length", "target": 100}', **ENV)):
        tokens = len(sample.completion) + (len(sample.completion) < 8)  # EOS
        assert sample.reward == pytest.approx(tokens / 100 - 1)


@pytest.mark.parametrize("arguments", [{"n": 0}, {"best_of": 0}])
def test_n_must_be_positive(model, arguments):
    with pytest.raises(ValueError, match="both must be at least 1"):
        next(samples(Args(model=model, **arguments, **ENV)))


@pytest.mark.parametrize("warper", [{"temperature": 1e-4}, {"top_k": 1}, {"top_p": 1e-6}], ids=lambda w: next(iter(w)))
def test_warpers_down_to_the_likeliest_token(model, warper):
    greedy = {s.completion for s in samples(Args(model=model, n=4, deterministic=True, **ENV))}
    assert {s.completion for s in samples(Args(model=model, n=16, **warper, **ENV))} == greedy


def test_a_checkpoints_temperature_may_be_replaced(tmp_path, model):
    from agents import REINFORCE

    env = gym.make_vec("TextGenChars-v0", num_envs=2, num_generations=2, autoreset_mode="Disabled")
    agent = REINFORCE("TokenPolicy", env, model, policy_kwargs={"temperature": 1e-4}, seed=0, device="cpu")
    agent.save(tmp_path / "cold")
    trained = {"model": str(tmp_path / "cold"), "n": 16, "device": "cpu"}
    assert len({s.completion for s in samples(Args(**trained))}) == 1
    assert len({s.completion for s in samples(Args(**trained, temperature=1.0))}) > 1


def test_best_of_takes_the_highest_reward_of_each_group(model):
    everything = list(samples(Args(model=model, n=24, prompt=["ab", "d"], **ENV)))
    best = list(samples(Args(model=model, n=6, best_of=4, prompt=["ab", "d"], **ENV)))
    groups = [everything[i : i + 4] for i in range(0, 48, 4)]  # the same 48 texts
    assert [s.reward for s in best] == [max(s.reward for s in group) for group in groups]
    assert all(s in group for s, group in zip(best, groups, strict=True))
    assert [s.prompt for s in best] == 6 * ["ab"] + 6 * ["d"]


def test_best_of_without_a_prompt_shares_the_drawn_ones(model):
    env = ENV | {"env_kwargs": '{"max_prompt_tokens": 4, "prompts": ["ab", "d", "c", "ca"]}'}
    everything = list(samples(Args(model=model, n=1, best_of=40, **env)))
    assert len(everything) == 1 and everything[0].reward > 0


TARGET = '{"name": "rlhf", "beta": 0.2}'


def test_target(model, capsys):
    main(Args(model=model, n=200, target=TARGET, acceptance=0.3, jsonl=True, **ENV))
    out, err = capsys.readouterr()
    accepted = [json.loads(line)["reward"] for line in out.splitlines()]
    plain = [s.reward for s in samples(Args(model=model, n=200, **ENV))]
    assert len(accepted) == 200 and np.mean(accepted) > np.mean(plain) + 0.1
    rate = re.match(r"(0\.\d+) ± 0\.\d+ of \d+ texts accepted \(log beta -?\d+\.\d+\)\n", err)
    assert float(rate[1]) == pytest.approx(0.3, abs=0.07)
    number = r"(\d+\.\d+) ± \d+\.\d+"
    for title in ("total variation to the target", "KL(target || .)", "KL(. || target)"):
        before, after = re.search(rf"{re.escape(title)}: {number} -> {number}\n", err).groups()
        assert float(after) < float(before)


def test_target_with_a_prompt(model):
    found, _ = samples_towards(RLHF(0.2), Args(model=model, n=5, prompt=["abc"], **ENV))
    assert [s.prompt for s in found] == ["abc"] * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.5, "top_k": 3, "best_of": 2}, r"leave out \['temperature', 'top_k', 'best_of'\]"),
        ({"deterministic": True}, r"leave out \['deterministic'\]"),
        ({"prompt": ["a", "b"]}, "one --prompt at a time"),
        ({"target": "rlhf"}, "--target is not JSON: .*: 'rlhf'"),
        ({"target": '{"name": "rlfh"}'}, "accepted are a Target or a dict whose 'name' is one of"),
        ({"acceptance": 0.0}, "acceptance is 0.0; it must be above 0"),
    ],
)
def test_target_mistakes(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        main(Args(**({"model": model, "target": TARGET} | arguments), **ENV))
