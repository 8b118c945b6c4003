"""scripts/match_toy.py: distances that fall with training, and what is infinite."""

import json

import pytest
import tyro

from scripts.match_toy import TARGETS, Args, main


def run(tmp_path, capsys, arguments):
    file = tmp_path / "numbers.json"
    main(tyro.cli(Args, args=[*arguments.split(), "--seeds", "1", "--n-envs", "32", "--out", str(file)]))
    return json.loads(file.read_text())["rows"], capsys.readouterr().out


@pytest.mark.slow
def test_training_brings_every_target_nearer(tmp_path, capsys):
    (before, _), (after, _) = (run(tmp_path, capsys, f"--updates {n} --initial-episodes 512") for n in (1, 40))
    assert [row["target"] for row in before] == list(TARGETS)
    for far, near in zip(before, after, strict=True):
        assert near["total_variation"][0] < far["total_variation"][0] - 0.02, near["target"]


def test_reverse_kl_is_not_trained_on_filters(tmp_path, capsys):
    rows, table = run(tmp_path, capsys, "--divergences reverse_kl --updates 1 --initial-episodes 256")
    assert [len(row["total_variation"]) for row in rows] == [0, 0, 1, 1] and "infinite" in table
