"""`scripts/best_known.py`: trained on one part of the prompts, measured on the other, kept where it is better."""

import json
import shlex

import pytest

from scripts import gallery
from scripts.agent_arguments import EnvArgs
from scripts.best_known import Args, in_split, main
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
    words = shlex.split(found["command"])
    assert words[:4] == ["python", "scripts/best_known.py", "--env-id", "TextGenArithmetic-v0"]
    options = {"--n-envs": "64", "--total-timesteps": "500", "--evaluation-episodes": "64"}
    assert dict(zip(words[4::2], words[5::2], strict=True)) == options
    row = gallery.row(TASKS["TextGenArithmetic-v0"], None, found)
    assert f"{found['value']:.3f} ± {found['standard_error']:.3f}, KL" in row and f"`{found['command']}`" in row

    kept["best"]["TextGenArithmetic-v0"] |= {"value": 0.99, "command": "another"}
    measured.write_text(json.dumps(kept))
    assert main(small(tmp_path)) == kept["best"]["TextGenArithmetic-v0"]  # the run is there already, and not better
    assert json.loads(measured.read_text()) == kept and "0.99 is known already: another" in capsys.readouterr().out


def test_evaluation_is_on_held_out_prompts(tmp_path):
    args = small(tmp_path)
    trained, examined = (in_split(args.env, split).make().unwrapped.task.prompts for split in ("train", "test"))
    assert not set(trained.texts(range(trained.num_prompts))) & set(examined.texts(range(examined.num_prompts)))
    assert (
        in_split(EnvArgs(env_kwargs='{"level": 3, "split": "train"}'), "test").env_kwargs
        == '{"level": 3, "split": "test"}'
    )


def test_an_entry_of_your_own_is_in_the_command(tmp_path):
    command = small(tmp_path, seeds=2, env=EnvArgs("TextGen-v0", n_envs=256, num_generations=8)).command(
        "rloo:kl_coef=0"
    )
    assert command == (
        "python scripts/best_known.py rloo:kl_coef=0 --env-id TextGen-v0 --total-timesteps 500 --seeds 2 "
        "--evaluation-episodes 64"
    )
