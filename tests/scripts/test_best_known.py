"""`scripts/best_known.py`: trained on one part of the prompts, measured on the other, kept where it is better."""

import json
import shlex
from dataclasses import replace

import pytest

from agents import REINFORCE
from scripts import gallery
from scripts.agent_arguments import EnvArgs
from scripts.best_known import Args, main
from scripts.command_line import parse
from scripts.experiments import runs
from textgym import evaluation
from textgym.tasks import TASKS

SMALL = EnvArgs("TextGenArithmetic-v0", n_envs=64, num_generations=8)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A file of what was measured in which only starting points stand."""
    file = tmp_path / "measured.json"
    file.write_text(json.dumps({"versions": {"a": "1"}, "ids": {"TextGenToy-v0": {"reward": 1, "standard_error": 1}}}))
    monkeypatch.setattr(gallery, "STARTING_POINTS", file)
    return file


def small(tmp_path, **kwargs):
    common = {
        "env": SMALL,
        "total_timesteps": 500,
        "evaluation_episodes": 64,
        "device": "cpu",
        "out": tmp_path / "runs",
    }
    return Args(**common | kwargs)


def test_the_best_is_kept_with_its_command(tmp_path, measured, capsys):
    found = main(small(tmp_path))
    kept = json.loads(measured.read_text())
    assert kept["best"] == {"TextGenArithmetic-v0": found} and kept["versions"] == {"a": "1"}
    (folder,) = (tmp_path / "runs" / "TextGenArithmetic-v0").glob("grpo*")
    record = json.loads((folder / "run.json").read_text())
    assert found["value"] == pytest.approx(record["evaluation"]["reward"]["value"], abs=1e-4)
    assert record["arguments"]["env"]["env_kwargs"] == '{"split": "train"}'
    assert found["command"] == (
        "python scripts/best_known.py --n-envs=64 --total-timesteps=500 --evaluation-episodes=64"
    )
    row = gallery.row(TASKS["TextGenArithmetic-v0"], None, found)
    assert f"{found['value']:.3f} ± {found['standard_error']:.3f}, KL" in row and f"`{found['command']}`" in row

    kept["best"]["TextGenArithmetic-v0"] |= {"value": 0.99, "command": "another"}
    measured.write_text(json.dumps(kept))
    assert main(small(tmp_path)) == kept["best"]["TextGenArithmetic-v0"]  # the run is there already, and not better
    assert json.loads(measured.read_text()) == kept and "0.99 is known already: another" in capsys.readouterr().out


def test_evaluation_is_on_held_out_prompts(tmp_path, monkeypatch):
    played = {}

    def keep(policy, episodes):
        played["test"] = policy.env.unwrapped.task.prompts
        return evaluation.evaluate(policy, episodes)

    monkeypatch.setattr(runs, "evaluate", keep)
    args = small(tmp_path, env=replace(SMALL, env_kwargs='{"level": 3, "split": "train"}'))
    env = args.env.make()
    args.evaluate(REINFORCE("TokenPolicy", env, device="cpu"), seed=0)
    trained, examined = env.unwrapped.task.prompts, played["test"]
    assert not set(trained.texts(range(trained.num_prompts))) & set(examined.texts(range(examined.num_prompts)))


@pytest.mark.parametrize("entry", ["rloo:kl_coef=0", "tuned/rloo.yaml"])
def test_what_is_told_makes_the_run_again(entry, tmp_path, measured, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "rloo.yaml").write_text("agent: rloo\nkl_coef: 0\n")
    args = small(tmp_path, agents=(entry,), env=replace(SMALL, env_kwargs='{"level": 1}'), model="tiny-tasks")
    again = parse(Args, None, shlex.split(main(args)["command"])[2:])
    assert replace(again, device=args.device, out=args.out) == args


def test_numbers_that_do_not_go_together_are_told_before_anything_is_trained(tmp_path, measured):
    with pytest.raises(ValueError, match="--evaluation-episodes 65 is not a multiple of --n-envs 64"):
        main(small(tmp_path, evaluation_episodes=65))
    assert not (tmp_path / "runs").exists()
