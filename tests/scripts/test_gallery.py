"""The gallery: every id has a row with what was measured of it, and measuring gives it again."""

import json
import re

import pytest

from scripts.gallery import STARTING_POINTS
from scripts.starting_points import Args, main, measure
from textgym.tasks import TASKS

PAGE = (STARTING_POINTS.parent / "gallery.md").read_text(encoding="utf-8")
KNOWN = json.loads(STARTING_POINTS.read_text(encoding="utf-8"))["ids"]


def test_every_id_has_a_row_and_a_starting_point_if_its_model_is_small():
    small = {task.id for task in TASKS.values() if task.model not in (None, "smollm2-q4") and not task.features}
    assert small <= set(KNOWN)
    for task in TASKS.values():
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| [`{task.id}`]")]
        assert len(re.findall(r"(?<!\\)\|", row)) == 10
        if task.id in KNOWN:
            low, high = task.reward_range
            assert low <= KNOWN[task.id]["reward"] <= high and f"{KNOWN[task.id]['reward']:.3f} ± " in row


def test_a_starting_point_is_found_again():
    env_id = "TextGenWords-v0"
    again, known = measure(env_id, 512, seed=1), KNOWN[env_id]
    error = (again["standard_error"] ** 2 + known["standard_error"] ** 2) ** 0.5
    assert abs(again["reward"] - known["reward"]) < 4 * error
    assert measure("TextGenChars-v0", 64) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": ("TextGenWord-v0",)}, "there is no id 'TextGenWord-v0'; did you mean 'TextGenWords-v0'"),
        ({"episodes": 100}, "--episodes 100 is no multiple of 64"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        main(Args(**arguments))
