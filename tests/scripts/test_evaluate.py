"""`scripts/evaluate.py`: numbers against hand computation from the episodes, checkpoints, and the command line."""

import json
import math
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from scripts.evaluate import Args, evaluate, load_agent, main
from tests.conftest import small_llama
from textgym.language_models import load_model
from textgym.matching import Estimate
from textgym.metrics import self_bleu
from textgym.sb3 import EpisodicAlgorithm

ROOT = Path(__file__).parents[2]


def save_model(path, seed, tokenizer=True):
    """A random Llama over the 5 tokens of TextGenChars-v0."""
    small_llama(seed=seed, initializer_range=0.1).save_pretrained(path)
    if tokenizer:
        gym.make("TextGenChars-v0").unwrapped.tokenizer.to_pretrained().save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), seed=0)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="module")
def checkpoint(model, other_model, tmp_path_factory):
    """What an agent that has moved away from its reference saves: the policy `other_model`, the reference `model`."""

    class Moved(EpisodicAlgorithm):
        """An algorithm of another name."""

    agent = Moved("TokenPolicy", "TextGenChars-v0", model, n_envs=4, num_generations=1, device="cpu")
    agent.policy.model.load_state_dict(load_model(other_model).state_dict())
    path = tmp_path_factory.mktemp("runs") / "checkpoint"
    agent.save(path)
    return str(path)


def log_probs_by_hand(path, episodes):
    """(E,) log-probability of each completion, and (E,) summed entropies, one token at a time."""
    network = load_model(path)
    totals, entropies = [], []
    for row in episodes.rows.tolist():
        prompt, completion = row[:1], [i for i in row[1:] if i != 5]
        with torch.no_grad():
            logits = network(torch.tensor([prompt + completion])).logits[0]
        distributions = logits[: len(completion)].double().log_softmax(-1)
        totals.append(sum(distributions[t, token].item() for t, token in enumerate(completion)))
        entropies.append(-(distributions.exp() * distributions).sum().item())
    return np.array(totals), np.array(entropies)


def test_numbers_against_the_episodes(model, other_model):
    agent, _, _, reference = load_agent(
        Args(model=model, reference=other_model, env_id="TextGenChars-v0", episodes=32, device="cpu")
    )
    assert reference == other_model
    kept = []
    sample, agent.sample_episodes = agent.sample_episodes, lambda n: kept.append(sample(n)) or kept[-1]
    result = evaluate(agent, 32, samples=2)
    (episodes,) = kept
    completions = [[i for i in row[1:] if i != 5] for row in episodes.rows.tolist()]
    texts = ["".join("abcd"[i] for i in ids if i < 4) for ids in completions]
    rewards = np.array([2 * text.count("ab") / max(len(text), 1) for text in texts])
    lengths = np.array([len(ids) for ids in completions])

    assert result.episodes == 32 == len(texts)
    assert 0 < rewards.mean() < 1  # otherwise the next lines show little
    assert result.reward.value == pytest.approx(rewards.mean())
    assert result.reward.standard_error == pytest.approx(rewards.std(ddof=1) / math.sqrt(32))
    assert result.components == {"regex": result.reward}
    assert result.length.value == pytest.approx(lengths.mean())
    assert result.eos_share == pytest.approx(np.mean([ids[-1] == 4 for ids in completions]))
    tokens = [i for ids in completions for i in ids]
    pairs = [pair for ids in completions for pair in zip(ids, ids[1:], strict=False)]
    assert result.distinct_1 == pytest.approx(len(set(tokens)) / len(tokens))
    assert result.distinct_2 == pytest.approx(len(set(pairs)) / len(pairs))
    assert result.self_bleu == pytest.approx(self_bleu(texts))

    ours, entropies = log_probs_by_hand(model, episodes)
    theirs, _ = log_probs_by_hand(other_model, episodes)
    k1 = ours - theirs
    assert result.kl_to_reference.value == pytest.approx(k1.mean(), abs=1e-4)
    assert result.kl_to_reference.standard_error == pytest.approx(k1.std(ddof=1) / math.sqrt(32), abs=1e-4)
    assert result.entropy == pytest.approx(entropies.sum() / lengths.sum(), abs=1e-4)
    assert [s.completion for s in result.samples] == [texts[0], texts[-1]]
    assert [s.reward for s in result.samples] == pytest.approx([rewards[0], rewards[-1]])
    assert [s.prompt for s in result.samples] == ["", ""]


def test_a_plain_model_is_its_own_reference(model, tmp_path, capsys):
    file = tmp_path / "new" / "result.json"
    result = main(Args(model=model, env_id="TextGenChars-v0", episodes=10, device="cpu", seed=3, json=file))
    assert result.kl_to_reference.value == pytest.approx(0, abs=1e-5)
    written = json.loads(file.read_text())
    assert written["env_id"] == "TextGenChars-v0" and written["model"] == model and written["seed"] == 3
    assert written["device"] == "cpu" and written["versions"]["torch"] == torch.__version__
    assert {name: written[name] for name in result.to_json()} == result.to_json()
    table = capsys.readouterr().out
    for word in ("reward", "regex", "KL to reference", "entropy", "ended by EOS", "distinct-2", "self-BLEU"):
        assert word in table
    assert f"{result.entropy:.4f}" in table and f"{result.reward.standard_error:.4f}" in table


def test_a_checkpoint_brings_its_env_and_reference(checkpoint, model, other_model):
    agent, env_id, _, reference = load_agent(Args(model=checkpoint, episodes=4, device="cpu"))
    assert (env_id, reference) == ("TextGenChars-v0", model)
    assert agent.env.num_envs == 4
    for ours, path in ((agent.policy.model, other_model), (agent.reference.model, model)):
        theirs = load_model(path).state_dict()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.state_dict().items())
    assert evaluate(agent, 64).kl_to_reference.value > 0.1


def test_a_checkpoint_with_an_unnamed_reference(model, tmp_path):
    agent = EpisodicAlgorithm(
        "TokenPolicy", "TextGenChars-v0", load_model(model), n_envs=2, num_generations=1, device="cpu"
    )
    agent.save(tmp_path / "saved")
    again, _, _, reference = load_agent(Args(model=str(tmp_path / "saved"), episodes=2, device="cpu"))
    assert reference == str(tmp_path / "saved" / "reference")
    assert evaluate(again, 2).kl_to_reference.value == pytest.approx(0, abs=1e-5)


def test_the_seed_decides(model):
    def run(seed):
        return main(Args(model=model, env_id="TextGenChars-v0", episodes=8, device="cpu", seed=seed)).to_json()

    assert run(1) == run(1) != run(2)


def test_env_arguments_reach_the_env(model):
    args = Args(
        model=model,
        env_id="TextGenChars-v0",
        env_kwargs='{"max_new_tokens": 3}',
        scorer='{"name": "length", "target": 2}',
    )
    agent, _, _, _ = load_agent(args)
    assert agent.mdp.max_new_tokens == 3 and agent.component_names == ("length",)
    assert agent.n_envs == 64  # the largest divisor of 256 up to 64


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"env_kwargs": "{"}, "not JSON"),
        ({"env_kwargs": "[1]"}, "JSON object"),
        ({"env_kwargs": '{"scorer": "length"}', "scorer": "length"}, "given twice"),
        ({"episodes": 10, "n_envs": 4}, "multiple"),
        ({"episodes": 0}, "positive"),
    ],
)
def test_clear_errors(model, changed, message):
    with pytest.raises(ValueError, match=message):
        main(Args(**{"model": model, "env_id": "TextGenChars-v0", "device": "cpu"} | changed))


def test_a_reference_with_other_tokens_is_refused(model, tmp_path):
    from textgym.tokenizers import character_tokenizer

    other = save_model(tmp_path, seed=2, tokenizer=False)
    character_tokenizer("wxyz").to_pretrained().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tokenizer"):
        load_agent(Args(model=model, reference=other, env_id="TextGenChars-v0", device="cpu"))


def test_one_episode_has_no_standard_error():
    estimate = Estimate.mean_of(torch.tensor([2]))
    assert estimate.value == 2 and math.isnan(estimate.standard_error)


def test_command_line_from_another_directory(checkpoint, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), "--model", checkpoint, "--device", "cpu"]
    done = subprocess.run(
        [*command, "--episodes", "6", "--json", "out.json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["episodes"] == 6 and written["env_id"] == "TextGenChars-v0"
    assert f"{written['reward']['value']:.4f}" in done.stdout
