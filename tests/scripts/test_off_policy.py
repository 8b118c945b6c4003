"""`scripts/off_policy.py`, and the logs that `scripts/sample.py` writes for it."""

import json

import gymnasium as gym
import pytest
import torch

from scripts.off_policy import Args, main
from scripts.sample import main as sample_main
from scripts.sampling.texts import Args as SampleArgs
from textgym.evaluation import ModelPolicy, off_policy, read_episodes
from textgym.language_models import load_model
from textgym.sb3 import EpisodicAlgorithm
from textgym.training import TokenModel

ENV = {"env_id": "TextGenChars-v0", "device": "cpu", "env_kwargs": '{"max_prompt_tokens": 4}'}


@pytest.fixture(scope="module")
def log(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    sample_main(SampleArgs(model=model, n=300, log=path, prompt=["ab", ""], **ENV))
    return path


def policy_of(model, **kwargs):
    env = gym.make_vec("TextGenChars-v0", num_envs=4, max_prompt_tokens=4, autoreset_mode="Disabled", **kwargs)
    return ModelPolicy(env, TokenModel(env.unwrapped.mdp, model))


def test_a_log_has_as_many_episodes_as_were_asked_for(log, model):
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 300 and {line["prompt"] for line in lines} == {"ab", ""}
    for line in lines:
        share = 2 * line["completion"].count("ab") / max(len(line["completion"]), 1)
        assert line["rewards"] == pytest.approx([0.0] * (len(line["rewards"]) - 1) + [share])
    policy = policy_of(model)
    assert off_policy(read_episodes(log, policy.task), policy).effective_sample_size == pytest.approx(300, abs=0.01)


def test_numbers_are_the_librarys(log, model, other_model, tmp_path, capsys):
    file = tmp_path / "new" / "result.json"
    found = main(Args(log=log, model=other_model, json=file, min_effective_sample_size=2, **ENV))
    policy = policy_of(other_model)
    episodes = read_episodes(log, policy.task)
    assert list(found) == ["is", "wis", "pdis", "wpdis"]  # a plain model has no value head
    for name, estimate in found.items():
        assert estimate == pytest.approx(off_policy(episodes, policy, name, min_effective_sample_size=2), abs=1e-6)
    written, text = json.loads(file.read_text()), capsys.readouterr().out
    assert written["as_logged"]["value"] == pytest.approx(episodes.rewards.sum(-1).mean().item(), abs=1e-6)
    assert written["estimates"] == {name: estimate._asdict() for name, estimate in found.items()}
    for estimate in found.values():
        assert f"{estimate.value:.4f}" in text and f"{estimate.effective_sample_size:.1f}" in text


def test_what_is_refused_is_told(log, other_model, capsys):
    found = main(Args(log=log, model=other_model, min_effective_sample_size=299, estimators=("wis",), **ENV))
    assert found["wis"].startswith("'wis': the effective sample size of 300 episodes is ")
    text = capsys.readouterr().out
    assert f"refused: {found['wis']}" in text and "nan" not in text


def test_another_scorer_and_another_temperature(log, model):
    scorer = '{"name": "regex", "pattern": "a"}'
    found = main(Args(log=log, model=model, scorer=scorer, temperature=1.2, **ENV))
    policy = policy_of(model, scorer=json.loads(scorer))
    policy.token_model = TokenModel(policy.task.mdp, model, temperature=1.2)
    expected = off_policy(read_episodes(log, policy.task), policy, scorer=json.loads(scorer))
    assert found["wis"] == pytest.approx(expected, abs=1e-6)
    assert found["wis"].value != pytest.approx(main(Args(log=log, model=model, **ENV))["wis"].value, abs=0.01)


def test_a_checkpoint_brings_its_env_and_its_value_head(log, model, tmp_path):
    agent = EpisodicAlgorithm(
        "TokenPolicy", gym.make_vec("TextGenChars-v0", 4, max_prompt_tokens=4), model, device="cpu"
    )
    torch.nn.init.normal_(agent.policy.token_model.value_net.weight)
    agent.policy.model.load_state_dict(load_model(model).state_dict())
    agent.save(tmp_path / "checkpoint")
    found = main(Args(log=log, model=str(tmp_path / "checkpoint"), device="cpu"))
    policy = policy_of(model)
    episodes = read_episodes(log, policy.task)
    policy.token_model.value_net.load_state_dict(agent.policy.token_model.value_net.state_dict())
    assert found["dr"] == pytest.approx(off_policy(episodes, policy, "dr"), abs=1e-5) and "wdr" in found


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"best_of": 2}, r"leave out --best-of"),
        ({"deterministic": True, "jsonl": True}, r"leave out --deterministic, --jsonl"),
        ({"top_k": 2}, r"leave out --top-k"),
        ({"no_score": True}, r"leave out --no-score"),
    ],
)
def test_what_a_log_leaves_out(model, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        sample_main(SampleArgs(model=model, log=tmp_path / "log.jsonl", **changed, **ENV))


def test_a_plain_model_has_no_values_for_doubly_robust_estimates(log, model):
    with pytest.raises(ValueError, match="'dr' is doubly robust: it needs values"):
        main(Args(log=log, model=model, estimators=("dr",), **ENV))
