"""The training script: its agents, what it writes, signals, resuming, a user's own reward from another directory."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tyro

import agents
from agents import REINFORCE
from scripts.command_line import run_script
from scripts.train import Args
from scripts.train import main as train
from tests.conftest import small_llama
from tests.helpers.scripts import error_of
from textgym.tokenizers import character_tokenizer
from textgym.training.run import open_run

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    small_llama().save_pretrained(folder)
    character_tokenizer("abcd").to_pretrained().save_pretrained(folder)
    return folder


def command(model, *extra):
    base = ["reinforce", "--env-id", "TextGenChars-v0", "--model", str(model), "--n-envs", "16", "--device", "cpu"]
    return [sys.executable, str(SCRIPT), *base, "--threads", "1", "--learning-rate", "1e-3", *extra]


def run(model, *extra):
    """Run the script's command line in this process; another one takes seconds to start."""
    run_script(train, Args, given=command(model, *extra)[2:])


def error(model, *extra):
    """What it says on its way out."""
    return error_of(train, Args, *command(model, *extra)[2:])


def test_train_writes_logs_checkpoints_and_samples_and_resumes(model, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_rewards.py").write_text(
        "def brevity(completions, **kwargs):\n    return [1 - len(c) / 8 for c in completions]\n"
    )
    options = ["--scorer", "my_rewards:brevity", "--out", "run", "--samples-every", "2", "--checkpoint-every", "300"]
    first = command(model, *options, "--total-timesteps", "1500")
    out = subprocess.run(first, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True).stdout
    folder = tmp_path / "run"
    rows = list(csv.DictReader((folder / "progress.csv").open()))
    assert "REINFORCE on TextGenChars-v0" in out and out.count("+0.") > 3 and len(rows) > 5
    assert {"rollout/reward", "rollout/kl_to_reference", "rollout/brevity", "train/loss"} <= set(rows[-1])
    assert float(rows[-1]["rollout/brevity"]) == pytest.approx(float(rows[-1]["rollout/reward"]), abs=1e-5)
    assert list((folder / "tensorboard" / "REINFORCE").glob("events.out.tfevents*"))
    saved = json.loads((folder / "checkpoint" / "algorithm.json").read_text())
    assert saved["env_id"] == "TextGenChars-v0" and saved["num_timesteps"] >= 1500
    assert f"checkpoint in run/checkpoint has {saved['num_timesteps']} tokens" in out
    assert len(list((folder / "checkpoints").iterdir())) == 2  # the last ones

    monkeypatch.chdir(tmp_path)
    before = (folder / "progress.csv").read_text()
    assert error(model, *options) == "'run' holds a run; choose another --out, or go on with it (train.py --resume)"
    run(model, *options, "--total-timesteps", "1500", "--resume")
    assert f"has {saved['num_timesteps']} tokens; a larger --total-timesteps goes on" in capsys.readouterr().out
    assert (folder / "progress.csv").read_text() == before
    run(model, *options, "--total-timesteps", "2500", "--resume")
    again = json.loads((folder / "checkpoint" / "algorithm.json").read_text())
    assert 2500 <= again["num_timesteps"] < 2700 and again["n_updates"] > saved["n_updates"]
    assert (folder / "progress.csv").read_text().startswith(before)


def test_a_scorer_that_fails_leaves_all_that_was_trained_and_says_how_to_go_on(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge.py").write_text(
        "from pathlib import Path\n"
        "calls = []\n"
        "def judge(completions):\n"
        "    calls.extend(completions)\n"
        "    if len(calls) > 100 and not Path('up').exists():\n"
        "        raise ConnectionError('timed out')\n"
        "    return [len(text) / 8 for text in completions]\n"
    )
    options = ["--scorer", "judge:judge", "--total-timesteps", "1500", "--samples-every", "0"]
    said = error(model, *options, "--out", "run")
    assert "timed out" in said and said.splitlines()[-1].endswith("tokens; go on with --resume"), said
    rows = list(csv.DictReader((tmp_path / "run" / "progress.csv").open()))
    assert saved_in(tmp_path / "run")["n_updates"] == len(rows) == 6  # of 16 texts each; the seventh is incomplete
    (tmp_path / "up").touch()
    run(model, *options, "--out", "run", "--resume")
    sys.modules["judge"].calls.clear()
    run(model, *options, "--out", "whole")
    for file in ("model.safetensors", "training.safetensors", "algorithm.json"):
        first, second = ((tmp_path / name / "checkpoint" / file).read_bytes() for name in ("run", "whole"))
        assert first == second, file


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_loadable_checkpoint(model, tmp_path, number):
    process = subprocess.Popen(
        command(model, "--total-timesteps", "100000000", "--out", "run"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    progress = tmp_path / "run" / "progress.csv"
    deadline = time.monotonic() + 120
    while not (progress.exists() and progress.read_text().count("\n") > 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number and f"stopped by {number.name}; go on with --resume" in out
    assert REINFORCE.load(tmp_path / "run" / "checkpoint", device="cpu").num_timesteps > 0


def test_a_wrong_scorer_name_is_one_clear_error(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'sentiment'" in error(model, "--scorer", "sentimant")


def parse(agent, model, *extra):
    base = [agent, "--env-id", "TextGenChars-v0", "--model", str(model), "--n-envs", "16", "--device", "cpu"]
    return tyro.cli(Args, args=[*base, *extra])


def saved_in(folder):
    return json.loads((folder / "checkpoint" / "algorithm.json").read_text())


@pytest.mark.parametrize(
    ("agent", "options", "updates"),
    [
        ("reinforce", ["--baseline", "mean", "--missing-eos-penalty", "1"], 1),
        ("rloo", ["--reward-to-go", "--temperature", "0.9", "--top-k", "4"], 1),
        ("grpo", ["--lora", '{"r": 2}', "--n-epochs", "2", "--batch-size", "8"], 4),
        ("ppo", ["--value-function", "separate", "--clip-range-vf", "0.2", "--batch-size", "8"], 8),
    ],
)
def test_every_agent_trains_and_logs_to_its_own_folder(agent, options, updates, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trained = train(parse(agent, model, "--total-timesteps", "300", *options))
    assert type(trained) is getattr(agents, agent.upper())
    assert f"{agent.upper()} on TextGenChars-v0" in capsys.readouterr().out
    saved = saved_in(Path("runs", agent))
    assert saved["num_timesteps"] >= 300 and saved["n_updates"] % updates == 0 and saved["n_updates"] >= 2 * updates
    assert saved["adapters"] is (agent == "grpo")
    assert {"train/loss", "train/kl_coef", "rollout/kl_to_reference"} <= set(
        next(csv.DictReader(Path("runs", agent, "progress.csv").open()))
    )


def test_ppo_resumes_with_the_command_repeated(model, tmp_path):
    options = [
        "--out",
        str(tmp_path),
        "--total-timesteps",
        "300",
        "--value-function",
        "separate",
        "--reference-kl-target",
        "0.5",
        "--optimizer",
        "sgd",
        "--learning-rate",
        "1e-4:1e-5",
        "--potential",
        '{"name": "length", "target": 3}',
    ]
    train(parse("ppo", model, *options))
    saved = saved_in(tmp_path)
    assert saved["arguments"]["kl_coef"] != 0.05

    again = parse("ppo", "not read", *options, "--resume", "--learning-rate", "3e-4", "--top-p", "0.9")
    agent = again.agent()
    assert agent.num_timesteps == saved["num_timesteps"] and agent._n_updates == saved["n_updates"]
    assert agent.kl_coef == saved["arguments"]["kl_coef"]  # the adapted one
    assert agent.learning_rate == 3e-4 and agent.policy_kwargs["top_p"] == 0.9
    assert (
        agent.policy.token_model.value_trunk is not None and agent.policy.token_model.value_net.weight.abs().sum() > 0
    )
    assert train(again) is None  # it has its 300
    again.run.total_timesteps = 600
    train(again)
    assert 600 <= saved_in(tmp_path)["num_timesteps"] < 800 and saved_in(tmp_path)["n_updates"] > saved["n_updates"]
    steps = [int(row["time/total_timesteps"]) for row in csv.DictReader((tmp_path / "progress.csv").open())]
    assert steps == sorted(set(steps)) and saved["num_timesteps"] in steps


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(model, tmp_path, capsys):
    options = ["--total-timesteps", "300", "--samples-every", "0"]
    whole, ended = tmp_path / "whole", tmp_path / "ended"
    train(parse("reinforce", model, *options, "--out", str(whole)))
    with open_run(ended, resume=False) as run:
        run.log.write_text("time/total_timesteps\n100\n")  # killed later
    train(parse("reinforce", model, *options, "--out", str(ended), "--resume"))
    assert f"there is no checkpoint in {ended} yet: the run begins anew" in capsys.readouterr().out
    assert saved_in(ended) == saved_in(whole)
    with pytest.raises(FileNotFoundError, match="there is no run in .*none' to go on with"):
        train(parse("reinforce", model, *options, "--out", str(tmp_path / "none"), "--resume"))


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("--total-timesteps", "0", "total_timesteps is 0"),
        ("--checkpoint-every", "0", "every is 0"),
        ("--checkpoint-minutes", "0", "minutes is 0.0"),
        ("--keep-checkpoints", "0", "keep is 0"),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_written(option, value, name, model, tmp_path):
    with pytest.raises(ValueError, match=name):
        train(parse("reinforce", model, "--out", str(tmp_path / "run"), option, value))
    assert not (tmp_path / "run" / "progress.csv").exists()


def test_a_damaged_checkpoint_is_named_and_an_earlier_one_can_be_pointed_to(model, tmp_path):
    options = ["--out", str(tmp_path / "run"), "--samples-every", "0", "--checkpoint-every", "100"]
    train(parse("reinforce", model, *options, "--total-timesteps", "600"))
    whole = saved_in(tmp_path / "run")
    newest = (tmp_path / "run" / "checkpoint").resolve()
    (newest / "model.safetensors").write_bytes(b"")
    with pytest.raises(
        ValueError, match=f"checkpoints/{newest.name}', model.safetensors: the file is damaged"
    ) as caught:
        train(parse("reinforce", model, *options, "--total-timesteps", "900", "--resume"))
    earlier = next(path for path in newest.parent.iterdir() if path != newest)
    assert f"checkpoints/{earlier.name}" in "".join(caught.value.__notes__)
    (tmp_path / "run" / "checkpoint").unlink()
    (tmp_path / "run" / "checkpoint").symlink_to(f"checkpoints/{earlier.name}")  # as docs/resume.md says
    train(parse("reinforce", model, *options, "--total-timesteps", "600", "--resume"))
    assert saved_in(tmp_path / "run") == whole


def test_without_a_kl_penalty_the_reward_alone_is_shown(model, tmp_path, capsys):
    train(parse("grpo", model, "--out", str(tmp_path), "--total-timesteps", "200", "--kl-coef", "0"))
    out = capsys.readouterr().out
    assert "reward +" in out and "KL" not in out
    row = next(csv.DictReader((tmp_path / "progress.csv").open()))
    assert "rollout/reward" in row and "rollout/kl_to_reference" not in row


def test_a_loss_that_is_not_finite_leaves_the_last_checkpoint(model, tmp_path, monkeypatch):
    options = ["--total-timesteps", "300", "--samples-every", "0"]
    path, handler = tmp_path / "run", signal.getsignal(signal.SIGTERM)
    with pytest.raises(FloatingPointError, match=r"the .*, at timestep \d+, update 1") as caught:
        train(parse("reinforce", model, *options, "--out", str(path), "--learning-rate", "1e30"))
    assert caught.value.__notes__ == [f"there is no checkpoint in {path} yet"]
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not (path / "checkpoint").exists()

    train(parse("reinforce", model, *options, "--out", str(path), "--resume"))
    saved = {file: file.read_bytes() for file in (path / "checkpoint").iterdir() if file.is_file()}
    options[1] = "900"
    monkeypatch.chdir(tmp_path)
    said, note = error(model, *options, "--out", "run", "--resume", "--learning-rate", "1e30").splitlines()
    assert said.startswith("the ")
    assert re.fullmatch(r"the checkpoint in run/checkpoint has \d+ tokens; go on with --resume", note)
    assert saved == {file: file.read_bytes() for file in (path / "checkpoint").iterdir() if file.is_file()}


def test_adapters_that_are_no_json_name_the_flag(model, tmp_path):
    with pytest.raises(ValueError, match=r"--lora is not JSON: .*: 'r=8'"):
        train(parse("ppo", model, "--out", str(tmp_path), "--lora", "r=8"))
