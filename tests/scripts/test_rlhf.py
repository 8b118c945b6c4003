"""`scripts/rlhf.py`: from ratings to a policy, with a held-out reward model beside the one that is paid."""

import csv
import json
import re
import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from scripts.agent_arguments import EnvArgs
from scripts.experiments.rlhf import SCORES, Args, Report, turn_of, with_reward
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


@pytest.mark.slow
def test_a_policy_pleases_the_raters_that_its_reward_model_never_saw(args, capsys):
    report = main(args)
    written = json.loads((args.out / "rlhf.json").read_text())["runs"]
    untrained, trained = ([record["evaluation"] for record in written[entry]] for entry in ("untrained", ENTRY))
    for before, after in zip(untrained, trained, strict=True):
        assert after["reward"]["value"] == pytest.approx(after["components"]["proxy"]["value"])  # all that is paid
        gain = after["components"]["held_out"]["value"] - before["components"]["held_out"]["value"]
        noise = np.hypot(*(one["components"]["held_out"]["standard_error"] for one in (before, after)))
        assert gain > 4 * noise
    told = re.findall(r"(\w+): 0.[6-9]\d\d ± .* pairs in the order of half (.) of the raters", capsys.readouterr().out)
    assert told == [("proxy", "1"), ("proxy", "2"), ("held_out", "1"), ("held_out", "2")]
    assert (args.out / "rlhf.png").stat().st_size > 10_000 and "| `untrained` |" in (args.out / "rlhf.md").read_text()
    assert [row[0] for row in report.rows()] == ["untrained", ENTRY]

    before = {path: path.stat().st_mtime_ns for path in args.out.rglob("*") if path.name in ("run.json", "config.json")}
    main(args)  # nothing is repeated
    assert before == {path: path.stat().st_mtime_ns for path in before} and len(before) == 8

    with pytest.raises(FileExistsError, match=r"reward-model-1 is a run with reward_epochs 6, not 5; choose another"):
        main(replace(args, reward_epochs=5))
    ratings = args.ratings / "train-half-1.jsonl"
    ratings.write_text(ratings.read_text().partition("\n")[2])
    with pytest.raises(FileExistsError, match="reward-model-1 is a run with ratings_sha256"):
        main(args)
    shutil.rmtree(args.out / "reward-model-1")
    with pytest.raises(FileExistsError, match="untrained-0 is a run with proxy: ratings_sha256"):
        main(args)


def write_log(folder, held_out):
    """The log of a run, one row for each value of the held-out reward; the KL counts them."""
    rows = [{"kl_to_reference": k, "proxy": k, "held_out": v, "sentiment": 0.1} for k, v in enumerate(held_out)]
    folder.mkdir()
    with (folder / "progress.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["time/total_timesteps", *(f"rollout/{name}" for name in rows[0])])
        writer.writerows([number, *row.values()] for number, row in enumerate(rows))


def test_the_turn_is_where_the_held_out_reward_is_largest(tmp_path):
    values = {"kl_to_reference": 1.0, "distinct_2": 1.0, "components": dict.fromkeys(SCORES, {"value": 0.5})}
    for seed in range(2):
        write_log(tmp_path / f"turns-{seed}", [-((k - 3) ** 2) + seed for k in range(8)])
        write_log(tmp_path / f"rises-{seed}", range(8))
    runs = [{"agent": f[:-2], "folder": f, "evaluation": values} for f in ("turns-0", "rises-0", "turns-1", "rises-1")]
    report = Report(runs, Args(out=tmp_path))
    numbers = [f"{value} ± 0.00" for value in ("0.50", "0.50", "0.50", "1.00", "1.00")]
    assert list(report.rows()) == [["turns", *numbers, "3.0"], ["rises", *numbers, "not seen"]]
    assert next(iter(Report(runs[:1], Args(out=tmp_path)).rows()))[-1] == "-"  # of one seed


def test_a_largest_value_of_noise_is_no_turn(rng):
    rising = 1 - np.exp(-np.arange(20) / 4)  # levels off
    falling = rising - 0.1 * np.arange(20)  # has its peak at span 4
    noisy = [curve + 0.1 * rng.normal(size=(500, 3, 20)) for curve in (rising, falling)]
    named = [[turn_of(held_out) for held_out in runs] for runs in noisy]
    # a two-sided 95% interval of a difference that is never below 0 lies below 0 in at most 2.5% of cases: 12.5 ± 3.5
    assert sum(span is not None for span in named[0]) <= 23
    found = [span for span in named[1] if span is not None]
    assert len(found) > 400 and abs(np.mean(found) - 4) < 1
    assert turn_of(np.array([[0.0, 1.0, 0.0]])) is None


def test_reward_models_that_are_given_are_not_trained(args, tmp_path):
    given = replace(args, out=tmp_path, proxy="org/model", held_out="movie-ratings")
    parts = json.loads(with_reward(given).env.scorer)["scorers"]
    assert [part["model"] for part in parts[:2]] == ["org/model", "movie-ratings"]
    assert not any(tmp_path.iterdir())


def test_the_reward_is_the_reward_model(args):
    with pytest.raises(ValueError, match="leave out --scorer"):
        main(Args(env=EnvArgs(scorer="sentiment"), ratings=args.ratings))


def test_what_cannot_be_run_is_refused_before_a_reward_model_is_trained(args, tmp_path):
    with pytest.raises(ValueError, match="unknown agent 'ppoo'"):
        main(replace(args, agents=("ppoo",), out=tmp_path / "out"))
    shutil.copytree(args.ratings, tmp_path / "ratings")
    (tmp_path / "ratings" / "test-half-2.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks \['test-half-2.jsonl'\]"):
        main(replace(args, ratings=tmp_path / "ratings", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
