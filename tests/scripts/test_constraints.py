"""scripts/constraints.py on a short run: the numbers of its file, and the targets of its ids."""

import json
import math
from dataclasses import replace

import pytest
import tyro

from scripts.constraints import Args, main, run
from textgym.matching import make_target
from textgym.scorers import make_scorer
from textgym.testing import make_generations


@pytest.mark.parametrize(
    ("arguments", "env_id", "means"),
    [
        (["keyword", "--share", "0.9"], "TextGenKeyword-v0", {"keyword": 0.9}),
        (["topic", "--smollm2"], "TextGenTopicSmolLM2-v0", {"topic": 0.85}),
        (["balance", "--share", "0.9"], "TextGenBalance-v0", {"opening": 0.5}),
        (["hybrid"], "TextGenHybrid-v0", {"topic": 0.85, "opening": 0.5}),
        (["hybrid", "--share", "0.97", "--smollm2"], "TextGenHybridSmolLM2-v0", {"topic": 0.97, "female": 0.5}),
    ],
)
def test_means_come_from_the_target_of_the_task(arguments, env_id, means):
    args = tyro.cli(Args, args=arguments)
    assert args.task.id == env_id
    assert args.target == {"name": "distributional", "means": means}
    assert list(make_target(args.target).features) == list(args.task.features)


@pytest.mark.parametrize(
    ("constraint", "expected"), [("hybrid", [1.5, 2.0, -0.5, 0.0]), ("topic", [2.0, 2.0, 0.0, 0.0])]
)
def test_a_reward_with_the_optimum_of_the_target_pays_lambda_for_each_feature(constraint, expected):
    scorer = make_scorer(Args(constraint).rewarding({"topic": 2.0, "opening": -0.5}))
    texts = ["This comedy is old.", "The comedy is old.", "This film is old.", "The film is old."]
    assert scorer.evaluate(make_generations([""] * 4, texts)).rewards.tolist() == expected


def test_a_short_run_has_a_row_for_each_agent_and_several_have_means(tmp_path, capsys, monkeypatch):
    sizes = "--total-timesteps 200 --n-envs 16 --initial-episodes 96 --episodes 32 --device cpu --seeds 2"
    options = ["--divergences", "alpha", "--rewarded", "rloo", "ppo", *sizes.split(), "--out", str(tmp_path)]
    args = tyro.cli(Args, args=["balance", *options])
    trained = run(args, "alpha", 0)
    monkeypatch.setattr("scripts.constraints.run", lambda _, __, seed: [replace(r, seed=seed) for r in trained])
    main(args)
    rows = json.loads((tmp_path / "balance.json").read_text())["rows"]
    names = ["reference", "alpha 0.5", "REINFORCE", "rloo, same target", "ppo, same target"]
    assert [(row["agent"], row["seed"]) for row in rows] == [(name, seed) for seed in (0, 1) for name in names]
    assert rows[0]["evaluation"]["kl_to_reference"]["value"] == pytest.approx(0, abs=1e-4)
    for row in rows:
        assert math.isfinite(row["least_kl"]) and 0 <= row["least_kl"] < 1
        assert set(row["evaluation"]["components"]) == {"opening"}
    assert [row["texts"] for row in rows[:5] if row["agent"] != "REINFORCE"] == [0, 112, 112, 112]  # one rollout of 16
    shown = capsys.readouterr().out.split("│ mean │")
    assert len(shown) == 1 + len(names)
    assert f"{rows[1]['evaluation']['length']['value']:.1f} ± 0.0" in shown[2].splitlines()[0]
