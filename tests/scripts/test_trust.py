"""What a checkpoint names is not imported unless the user says so; nothing is asked."""

import builtins
import json
import sys

import gymnasium as gym
import pytest

import textgym  # noqa: F401
from agents import REINFORCE
from scripts import evaluate, sample
from tests.conftest import CHARACTERS, small_llama
from textgym.importing import import_string, imports_limited_to
from textgym.training.state import FORMAT, MANIFEST, checksums, write_json

PAYLOAD = """
from pathlib import Path
Path("imported").touch()
def length(completions):
    return [float(len(text)) for text in completions]
prompts = ["", "a"]
"""
CODE = "downloaded.payload:length"


@pytest.fixture
def downloaded(tmp_path, monkeypatch):
    """A checkpoint with a module of its own, in a folder below the working directory; its env is edited."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in [name for name in sys.modules if name.split(".")[0] == "downloaded"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "input", lambda *args: pytest.fail("something was asked"))
    env = gym.make_vec("TextGen-v0", num_envs=4, num_generations=2, autoreset_mode="Disabled", **CHARACTERS)
    REINFORCE("TokenPolicy", env, small_llama(), seed=0, device="cpu").save("downloaded")
    (tmp_path / "downloaded" / "payload.py").write_text(PAYLOAD)

    def edit(env_id="TextGen-v0", **kwargs):
        file = tmp_path / "downloaded" / "algorithm.json"
        saved = json.loads(file.read_text())
        write_json(file, saved | {"env_id": env_id, "env_kwargs": saved["env_kwargs"] | kwargs})
        write_json(tmp_path / "downloaded" / MANIFEST, {"format": FORMAT, "files": checksums(tmp_path / "downloaded")})
        return tmp_path / "imported"

    return edit


def run(script, **kwargs):
    """A script on the checkpoint."""
    if script is sample:
        return sample.samples(sample.Args(model="downloaded", n=1, device="cpu", **kwargs))
    return evaluate.main(evaluate.Args(model="downloaded", episodes=2, device="cpu", **kwargs))


@pytest.mark.parametrize("script", [sample, evaluate])
@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"scorer": CODE}, CODE),
        ({"scorer": {"name": CODE}}, CODE),
        ({"scorer": {"name": "function", "function": CODE}}, CODE),
        ({"scorer": {"name": "weighted_sum", "scorers": ["sentiment", CODE]}}, CODE),
        ({"scorer": {"name": "weighted_sum", "scorers": [{"name": "threshold", "scorer": CODE, "at": 1.0}]}}, CODE),
        ({"scorer": {"name": "threshold", "scorer": CODE, "at": 1.0}}, CODE),
        ({"prompts": "downloaded.payload:prompts"}, "downloaded.payload:prompts"),
        ({"env_id": "downloaded.payload:TextGen-v0"}, "downloaded.payload:TextGen-v0"),
        ({"env_id": "textgymevil:TextGen-v0"}, "textgymevil:TextGen-v0"),
        ({"partner": "downloaded.payload:length", "eot_token_ids": [1]}, CODE),
    ],
)
def test_a_module_of_the_checkpoint_is_not_imported(downloaded, script, env, named):
    imported = downloaded(**env)
    with pytest.raises(ValueError, match="is not imported: .* names .*--trust") as caught:
        run(script)
    assert named in str(caught.value) and not imported.exists()


@pytest.mark.parametrize(
    "path",
    [
        "textgymevil:length",
        "textgymevil.payload:length",
        "textgym_evil:length",
        "Textgym.guessing:answer",
        ".textgym.guessing:answer",
        "downloaded.textgym.payload:length",
        "textgym.importing:importlib.import_module",  # what a module of ours imports is not ours
        "textgym.importing:os.getcwd",
        "textgym.importing:sys",
        "textgym.importing:__builtins__.get",
        "textgym.guessing:re.escape",
        "textgym.files:remove",  # ours, and no part of a task
        "textgym.language_models:load_model",
        "textgym.scorers:Keyword",
    ],
)
def test_names_that_only_resemble_the_packages_own_are_not_imported(downloaded, tmp_path, path):
    for name in ("textgymevil", "textgym_evil"):
        (tmp_path / f"{name}.py").write_text(PAYLOAD)
    imported = downloaded(scorer=path)
    with pytest.raises(ValueError, match=f"scorer '{path}' is not imported: .*--trust"):
        run(sample)
    assert not imported.exists()


@pytest.mark.parametrize("env_id", ["TextGen-v0", "textgym:TextGen-v0", "textgym.registration:TextGen-v0"])
def test_what_the_package_itself_has_needs_no_trust(downloaded, env_id):
    """A partner and a scorer by import string, as in the arguments of `TextGenGuess-v0`."""
    game = {"partner": "textgym.guessing:answer", "eot_token_ids": [1], "scorer": "textgym.guessing:Guessed"}
    downloaded(env_id, prompts=[{"prompt": "a", "secret": 5, "turns": 2}], **game)
    assert run(sample)[0].reward is not None


def test_all_that_is_named_is_listed(downloaded):
    downloaded(scorer={"name": CODE}, prompts="downloaded.payload:prompts")
    with pytest.raises(ValueError, match=r"names \['downloaded.payload:length', 'downloaded.payload:prompts'\]"):
        run(sample)


@pytest.mark.parametrize("script", [sample, evaluate])
def test_what_the_user_repeats_or_trusts_is_imported(downloaded, script):
    imported = downloaded(scorer=CODE)
    run(script, scorer=CODE)
    assert imported.exists()
    imported.unlink()
    del sys.modules["downloaded.payload"]
    run(script, trust=True)
    assert imported.exists()


def test_one_repeated_name_trusts_no_other(downloaded):
    imported = downloaded(scorer=CODE, prompts="downloaded.payload:prompts")
    with pytest.raises(ValueError, match=r"prompts' is not imported: .* names \['downloaded.payload:prompts'\]"):
        run(sample, scorer="textgym.scorers.sentiment:Sentiment", env_kwargs="{}")
    assert not imported.exists()


@pytest.mark.parametrize("script", [sample, evaluate])
def test_a_checkpoint_that_names_nothing_needs_no_trust(downloaded, script):
    downloaded(scorer={"name": "keyword", "words": ["a:b"]}, prompts=["a"])
    run(script)


def test_without_scoring_the_scorer_of_a_checkpoint_is_not_imported(downloaded):
    imported = downloaded(scorer=CODE)
    assert run(sample, no_score=True)[0].reward is None
    assert not imported.exists()


def test_a_limit_ends_with_its_block():
    with imports_limited_to(["json:dumps"], "no"):
        assert import_string("json:dumps", "thing") is json.dumps
        with pytest.raises(ValueError, match="thing 'json:loads' is not imported: no"):
            import_string("json:loads", "thing")
    assert import_string("json:loads", "thing") is json.loads
