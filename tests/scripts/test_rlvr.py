"""`scripts/rlvr.py`: exact measures of what agents learn, on prompts that they never see."""

import json
import math

import numpy as np
import pytest

from agents import RLOO
from scripts.agent_arguments import EnvArgs
from scripts.experiments import runs
from scripts.experiments.rlvr import COLUMNS, Args
from scripts.experiments.runs import execute
from scripts.rlvr import main
from textgym.exact import expectation

SMALL = EnvArgs("TextGenArithmetic-v0", n_envs=64, num_generations=8)


def small(tmp_path, **kwargs):
    common = {"agents": ("grpo:kl_coef=0,learning_rate=3e-4",), "env": SMALL, "seeds": 1, "device": "cpu"}
    return Args(**common | {"total_timesteps": 1000, "held_out": 4, "out": tmp_path / "runs"} | kwargs)


def test_held_out_sums_become_right_in_seconds():
    """The rise of the exact chance of the right answer, prompt by prompt, in standard errors over held-out prompts."""
    args = Args(env=EnvArgs("TextGenArithmetic-v0", n_envs=256, num_generations=8), held_out=32)
    options = {"kl_coef": 0.0, "learning_rate": 3e-4, "seed": 0, "device": "cpu"}
    agent = RLOO("TokenPolicy", args.env.make(), "tiny-tasks", **options)
    before = expectation(args.answers.log_probs(agent), args.rewards)
    agent.learn(8_000)
    rise = expectation(args.answers.log_probs(agent), args.rewards) - before
    assert rise.mean() > 4 * rise.std() / math.sqrt(len(rise)) and rise.mean() > 0.02


def test_the_table_and_what_need_not_be_repeated(tmp_path, capsys, monkeypatch):
    args = small(tmp_path)
    report = main(args)
    written = json.loads((args.out / "rlvr.json").read_text())
    start, trained = (record["evaluation"] for record in written["runs"])
    assert start["KL"] == pytest.approx(0, abs=1e-6) and start["best at its KL"] == pytest.approx(
        start["pass@1"], abs=1e-4
    )
    assert 0 < trained["KL"] and trained["pass@1"] <= trained["best at its KL"] + 1e-6
    for measures in (start, trained, *written["best_of"].values()):
        assert measures["pass@1"] == pytest.approx(measures["reward"], abs=1e-6)
        values = [measures[f"pass@{k}"] for k in (1, 4, 16, 64)]
        assert values == sorted(values) and values[-1] <= 1
    # the best of four answers is right where any of four is
    assert written["best_of"]["best of 4"]["pass@1"] == pytest.approx(start["pass@4"], abs=1e-6)
    assert written["best_of"]["best of 16"]["pass@4"] == pytest.approx(start["pass@64"], abs=1e-6)
    lines = (args.out / "rlvr.md").read_text().splitlines()
    assert lines[2].split(" | ")[1 : 1 + len(COLUMNS)] == list(COLUMNS)
    assert sum(line.startswith("| `") for line in lines) == 4 == len(list(report.rows()))
    assert f"{trained['pass@4']:.3f}" in capsys.readouterr().out

    repeated = []
    monkeypatch.setattr(runs, "execute", lambda run, args: repeated.append(run.seed) or execute(run, args))
    main(small(tmp_path))
    assert not repeated
    with pytest.raises(FileExistsError, match="held_out 4, not 5"):
        main(small(tmp_path, held_out=5))


def test_held_out_prompts_are_not_trained_on(tmp_path):
    args = small(tmp_path, held_out=100)
    asked = {text for text in args.answers.task.prompts.texts(args.answers.prompt_ids)}
    trained = args.env.make().unwrapped.task.prompts
    assert not asked & set(trained.texts(np.arange(trained.num_prompts)))


def test_too_many_prompts(tmp_path):
    with pytest.raises(ValueError, match="--held-out is 100000, but there are 512 held-out prompts"):
        main(small(tmp_path, held_out=100_000))


@pytest.mark.slow
def test_sums_are_learned_in_five_minutes(tmp_path):
    """From the start to four right answers in five, with as many solved in 64 tries as before."""
    args = Args(agents=Args.agents[:1], seeds=1, out=tmp_path, device="cpu")
    start, trained = main(args).records
    assert start["evaluation"]["pass@1"] < 0.5 and trained["evaluation"]["pass@1"] >= 0.8
    assert trained["evaluation"]["pass@64"] >= start["evaluation"]["pass@64"]
    assert trained["training_cpu_seconds"] < 300
