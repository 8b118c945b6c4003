"""scripts/constraints.py on a short run: the numbers of its file, and the targets of its ids."""

import json
import math

import gymnasium as gym
import pytest
import tyro

import textgym  # noqa: F401
from scripts.constraints import Args, constraint_target, main
from textgym.matching import make_target


@pytest.mark.parametrize("constraint", ["keyword", "topic", "balance", "hybrid"])
def test_the_ids_report_what_the_targets_read(constraint):
    env = gym.make(f"TextGen{constraint.capitalize()}-v0")
    assert set(make_target(constraint_target(constraint, 0.9, False)).features) <= set(
        env.unwrapped.scorer.component_names
    )


def test_a_short_run_writes_a_row_each_for_the_reference_f_dpg_and_reinforce(tmp_path, capsys):
    sizes = "--total-timesteps 700 --n-envs 32 --initial-episodes 192 --episodes 64 --device cpu"
    main(tyro.cli(Args, args=["balance", "--divergences", "alpha", *sizes.split(), "--out", str(tmp_path)]))
    rows = json.loads((tmp_path / "balance.json").read_text())["rows"]
    assert [row["agent"] for row in rows] == ["reference", "alpha 0.5", "REINFORCE"]
    assert rows[0]["evaluation"]["kl_to_reference"]["value"] == pytest.approx(0, abs=1e-4)
    for row in rows:
        assert math.isfinite(row["least_kl"]) and 0 <= row["least_kl"] < 1
        assert set(row["evaluation"]["components"]) == {"opening"}
    assert "alpha 0.5" in capsys.readouterr().out
