"""`scripts/evaluate.py`: numbers against hand computation from the episodes, checkpoints, and the command line."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from scripts.evaluate import Args, main
from scripts.policies import load
from tests.conftest import save_chars_model
from tests.helpers.scripts import error_of
from textgym.evaluation import evaluate
from textgym.language_models import load_model
from textgym.sb3 import EpisodicAlgorithm
from textgym.tasks.reviews import prompts

ROOT = Path(__file__).parents[2]


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


def test_numbers_are_written_though_the_reader_of_the_table_goes_away(model, tmp_path, monkeypatch):
    def closed(*args):
        raise BrokenPipeError

    monkeypatch.setattr("rich.console.Console.print", closed)
    file = tmp_path / "result.json"
    with pytest.raises(BrokenPipeError):
        main(Args(model=model, env_id="TextGenChars-v0", episodes=10, device="cpu", json=file))
    assert "reward" in json.loads(file.read_text())


def test_a_plain_model_is_its_own_reference(model, tmp_path, capsys):
    file = tmp_path / "new" / "result.json"
    result = main(Args(model=model, env_id="TextGenChars-v0", episodes=10, device="cpu", seed=3, json=file))
    assert result.kl_to_reference.value == pytest.approx(0, abs=1e-5)
    written = json.loads(file.read_text())
    assert written["env_id"] == "TextGenChars-v0" and written["model"] == model and written["seed"] == 3
    assert written["device"] == "cpu" and written["versions"]["torch"] == version("torch")
    assert {name: written[name] for name in result.to_json()} == result.to_json()
    table = capsys.readouterr().out
    for word in ("reward", "regex", "KL to reference", "entropy", "ended by EOS", "distinct-2", "self-BLEU"):
        assert word in table
    assert f"{result.entropy.value:.4f}" in table and f"{result.reward.standard_error:.4f}" in table


def test_pass_at_k_and_other_scorers(model, tmp_path, capsys):
    file = tmp_path / "result.json"
    regex = '{"name": "regex", "pattern": "c", "component_name": "c"}'
    common = {"model": model, "env_id": "TextGenChars-v0", "episodes": 24, "device": "cpu", "json": file, "samples": 24}
    result = main(Args(**common, pass_at=(1, 4), success_at=0.25, scorers=(regex, "compiles")))
    assert list(result.pass_at) == [1, 4] and 0 < result.pass_at[1].value < result.pass_at[4].value < 1
    assert list(result.other_components) == ["c", "compiles"]
    texts = [sample.completion for sample in result.samples]
    assert result.other_components["c"].value == pytest.approx(sum(t.count("c") / max(len(t), 1) for t in texts) / 24)
    written = json.loads(file.read_text())
    assert {name: written[name] for name in result.to_json()} == result.to_json()
    table = capsys.readouterr().out
    for row in ("pass@1", "pass@4", "not trained on: c", "not trained on: compiles"):
        assert row in table
    more = main(Args(**common, pass_at=(1,), attempts=12, success="regex", success_at=0.25))
    assert list(more.pass_at) == [1] and more.episodes == 24


def test_the_distance_from_the_frontier(checkpoint, model, tmp_path, capsys):
    file = tmp_path / "result.json"
    common = {"device": "cpu", "episodes": 64, "frontier": 50, "frontier_prompts": 9, "json": file}
    result = main(Args(model=checkpoint, **common))
    printed, written = capsys.readouterr().out, json.loads(file.read_text())
    assert written["frontier"]["shape"] == [1, 50]
    limit = written["frontier"]["limit"]
    assert f"50 samples of each of 1 prompts support the frontier up to KL {limit['kl']:.2f} nats" in printed
    for number, row in (  # their first words: a narrow terminal wraps names
        (result.share_of_attainable, "share of the attainable"),
        (result.times_least_kl, "times the least KL"),
    ):
        assert (row in printed) == (number is not None)
    plain = main(Args(model=model, env_id="TextGenChars-v0", **common))
    assert plain.share_of_attainable is None  # it is its own reference


def test_held_out_prompts():
    args = Args(env_kwargs='{"max_new_tokens": 2}', split="test", episodes=4, device="cpu", samples=4)
    held_out = set(prompts("test"))
    assert all(sample.prompt in held_out for sample in main(args).samples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 10, "pass_at": (1, 4)}, "--episodes 10 is not a multiple of 4, the completions of each prompt"),
        ({"episodes": 24, "pass_at": (4,), "n_envs": 6}, "--n-envs 6 is not a multiple of 4"),
        ({"episodes": 24, "pass_at": (4,), "n_envs": 16}, "--episodes 24 is not a multiple of --n-envs 16"),
        ({"episodes": 24, "pass_at": (4,), "attempts": 2}, "needs 4 or more completions of each prompt, not 2"),
        ({"episodes": 4, "scorers": ("{",)}, "--scorers is not JSON"),
        ({"episodes": 4, "scorers": ("sentimet",)}, "sentiment"),
    ],
)
def test_wrong_ways_to_measure(options, message, model):
    with pytest.raises(ValueError, match=message):
        main(Args(model=model, env_id="TextGenChars-v0", device="cpu", **options))


def test_a_checkpoint_brings_its_env_and_reference(checkpoint, model, other_model):
    loaded = load(Args(model=checkpoint, device="cpu"), 4)
    assert (loaded.env_id, loaded.reference, loaded.env.num_envs) == ("TextGenChars-v0", model, 4)
    policy = loaded.policy()
    for ours, path in ((policy.token_model.model, other_model), (policy.reference.model, model)):
        theirs = load_model(path).state_dict()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.state_dict().items())
    assert evaluate(policy, 64).kl_to_reference.value > 0.1


def test_a_checkpoint_with_an_unnamed_reference(model, tmp_path):
    agent = EpisodicAlgorithm(
        "TokenPolicy", "TextGenChars-v0", load_model(model), n_envs=2, num_generations=1, device="cpu"
    )
    agent.save(tmp_path / "saved")
    again = load(Args(model=str(tmp_path / "saved"), device="cpu"), 2)
    assert again.reference == str(tmp_path / "saved" / "reference")
    assert evaluate(again.policy(), 2).kl_to_reference.value == pytest.approx(0, abs=1e-5)


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
    loaded = load(args, args.rows())
    task = loaded.env.unwrapped.task
    assert task.mdp.max_new_tokens == 3 and task.scorer.component_names == ("length",)
    assert loaded.env.num_envs == 64  # the largest divisor of 256 up to 64


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env-kwargs", "{"], "--env-kwargs is not JSON"),
        (["--env-kwargs", "[1]"], "--env-kwargs must be a JSON object"),
        (["--scorer", "{bad"], "--scorer is not JSON"),
        (["--scorer", "length", "--env-kwargs", '{"scorer": "length"}'], "scorer is given twice"),
        (["--episodes", "10", "--n-envs", "4"], "--episodes 10 is not a multiple of --n-envs 4"),
        (["--episodes", "0"], "--episodes is 0; it must be an integer of at least 1"),
        (["--n-envs", "0"], "--n-envs is 0; it must be"),
        (["--n-envs", "-2"], "--n-envs is -2; it must be"),
        (["--micro-batch-size", "0"], "--micro-batch-size is 0; it must be"),
        (["--samples", "-1"], "--samples is -1; it must be an integer of at least 0"),
        (["--seed", "-1"], "--seed is -1; it must be"),
        (["--device", "cuda:99"], "--device is 'cuda:99'; it must be 'auto', 'cpu', or another device"),
    ],
)
def test_clear_errors(model, words, message):
    assert error_of(main, Args, "--model", model, "--env-id", "TextGenChars-v0", *words).startswith(message)


def test_a_reference_with_other_tokens_is_refused(model, tmp_path):
    from textgym.tokenizers import character_tokenizer

    other = save_chars_model(tmp_path, seed=2)
    character_tokenizer("wxyz").to_pretrained().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tokenizer"):
        load(Args(model=model, env_id="TextGenChars-v0", device="cpu"), 2).policy(other)


def test_a_checkpoint_without_a_reference_asks_for_one(model, tmp_path):
    from agents import REINFORCE

    loaded = load_model(model)
    agent = REINFORCE("TokenPolicy", "TextGenChars-v0", loaded, n_envs=4, num_generations=2, kl_coef=0.0, device="cpu")
    agent.save(tmp_path / "saved")
    args = Args(model=str(tmp_path / "saved"), episodes=4, device="cpu")
    with pytest.raises(ValueError, match="keeps no reference; name one with --reference"):
        main(args)


def test_command_line_from_another_directory(checkpoint, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), "--model", checkpoint, "--device", "cpu"]
    done = subprocess.run(
        [*command, "--episodes", "6", "--json", "out.json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["episodes"] == 6 and written["env_id"] == "TextGenChars-v0"
    assert f"{written['reward']['value']:.4f}" in done.stdout
