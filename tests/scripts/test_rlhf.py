"""`scripts/rlhf.py`: from ratings to a policy, with a held-out reward model beside the one that is paid."""

import csv
import json
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from scripts.agent_arguments import EnvArgs
from scripts.experiments.rlhf import Args, Report, with_reward
from scripts.preferences.human_ratings import write_files
from scripts.rlhf import main
from tests.conftest import save_chars_model
from textgym.preferences import Rating

ENTRY = "rloo:kl_coef=0,learning_rate=0.02"
MANY = {"prompts": ["".join(letters) for letters in product("abcd", repeat=3)], "max_prompt_tokens": 3}
"""More prompts than rows, so that groups are needed for training, and no text of the evaluation has a mate."""


@pytest.fixture(scope="module")
def args(tmp_path_factory):
    """Raters who like the letter "a", each with a noise of their own."""
    folder, rng = tmp_path_factory.mktemp("rlhf"), np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcd"), size=rng.integers(1, 9))) for _ in range(400)]
    given = [tuple((text.count("a") / 4 + rng.normal(0, 0.2, 4)).tolist()) for text in texts]
    ratings = [Rating(text, float(np.mean(r)), ratings=r) for text, r in zip(texts, given, strict=True)]
    write_files(ratings, folder / "ratings", train_pairs=10, test_pairs=10)
    return Args(
        agents=(ENTRY,),
        env=EnvArgs("TextGenChars-v0", env_kwargs=json.dumps(MANY), n_envs=64, num_generations=4),
        model=save_chars_model(folder, seed=0),
        seeds=2,
        total_timesteps=6000,
        evaluation_episodes=128,
        out=folder / "out",
        device="cpu",
        ratings=folder / "ratings",
        held_out=None,
        reward_model=str(folder),
        reward_epochs=6,
        reward_learning_rate=0.01,
    )


def test_a_policy_pleases_the_raters_that_its_reward_model_never_saw(args, capsys):
    report = main(args)
    written = json.loads((args.out / "rlhf.json").read_text())["runs"]
    untrained, trained = ([record["evaluation"] for record in written[entry]] for entry in ("untrained", ENTRY))
    for before, after in zip(untrained, trained, strict=True):
        assert after["reward"]["value"] == pytest.approx(after["components"]["proxy"]["value"])  # all that is paid
        gain = after["components"]["held_out"]["value"] - before["components"]["held_out"]["value"]
        noise = np.hypot(*(one["components"]["held_out"]["standard_error"] for one in (before, after)))
        assert gain > 4 * noise
    told = re.findall(
        r"of half (.) of the raters: 0.[6-9]\d\d ± .* pairs in the order of half (.)", capsys.readouterr().out
    )
    assert told == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    assert (args.out / "rlhf.png").stat().st_size > 10_000 and "| `untrained` |" in (args.out / "rlhf.md").read_text()
    assert [row[0] for row in report.rows()] == ["untrained", ENTRY]

    before = {path: path.stat().st_mtime_ns for path in args.out.rglob("*") if path.name in ("run.json", "config.json")}
    main(args)  # nothing is repeated
    assert before == {path: path.stat().st_mtime_ns for path in before} and len(before) == 6


def test_the_turn_is_where_the_held_out_reward_is_largest(args, tmp_path):
    rows = [{"kl_to_reference": k, "proxy": k, "held_out": -((k - 3) ** 2), "sentiment": 0.1} for k in range(8)]
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "progress.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["time/total_timesteps", *(f"rollout/{name}" for name in rows[0])])
        writer.writerows([1 + number, *row.values()] for number, row in enumerate(rows))
    values = dict.fromkeys(("kl_to_reference", "distinct_2"), 1.0) | {
        "components": dict.fromkeys(rows[0], {"value": 0.5})
    }
    report = Report([{"agent": "x", "folder": "run", "evaluation": values}], Args(out=tmp_path))
    assert next(iter(report.rows())) == ["x", "0.50", "0.50", "0.50", "1.00", "1.00", "3.0"]


def test_reward_models_that_are_given_are_not_trained(args, tmp_path):
    given = replace(args, out=tmp_path, proxy="org/model", held_out="movie-ratings")
    parts = json.loads(with_reward(given).env.scorer)["scorers"]
    assert [part["model"] for part in parts[:2]] == ["org/model", "movie-ratings"]
    assert not any(tmp_path.iterdir())


def test_the_reward_is_the_reward_model(args):
    with pytest.raises(ValueError, match="leave out --scorer"):
        main(Args(env=EnvArgs(scorer="sentiment"), ratings=args.ratings))
