"""scripts/constraints.py on a short run: the numbers of its file, and the targets of its ids."""

import json
import math

import pytest
import tyro

from scripts.constraints import Args, main
from textgym.matching import make_target


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
