"""scripts/reward_model.py: models are trained, saved where the scorer finds them, and set beside VADER and raters."""

import json

import numpy as np
import pytest

from scripts.reward_model import Args, main
from textgym.scorers import make_scorer
from textgym.testing import make_generations

GOOD, BAD = ("great", "wonderful", "lovely", "good"), ("awful", "boring", "terrible", "bad")


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for word in (*GOOD, *BAD):
        for what in ("film", "plot", "cast"):
            given = [float(x) for x in np.clip((2 if word in GOOD else -2) + rng.integers(-2, 3, 6), -4, 4)]
            rows.append({"text": f"The {what} is {word}.", "rating": float(np.mean(given)), "ratings": given})
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows[:9] + rows[12:21]))
    test.write_text("".join(json.dumps(row) + "\n" for row in rows[9:12] + rows[21:]))
    return train, test


def test_two_seeds_of_adapters_beside_vader_and_raters(files, tmp_path, capsys):
    train, test = files
    options = {"loss": "regression", "learning_rate": 3e-3, "batch_size": 6, "lora": '{"r": 2}', "device": "cpu"}
    out = tmp_path / "out"
    args = Args(train=train, eval=(test,), out=out, num_train_epochs=6.0, seeds=2, adapters_only=True, **options)
    (mean,) = main(args)
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("reward model, 2 seeds", "VADER", "one rater of each text", "half the raters, by the others"):
        assert words.split()[0] in printed
    (written,) = json.loads((out / "evaluation.json").read_text()).values()
    assert [one["num_texts"] for one in written] == [6, 6] and len(written[0]["reliability"]["counts"]) == 6
    assert mean.mean == pytest.approx(np.mean([one["accuracy"] for one in written])) and mean.mean > 0.6
    assert written[0]["accuracy"] != written[1]["accuracy"] or written[0]["mean_reward"] != written[1]["mean_reward"]
    scorer = make_scorer({"name": "reward_model", "model": str(out / "seed-1")})
    good, bad = scorer.evaluate(make_generations(["", ""], ["The film is great.", "The film is awful."])).rewards
    assert good > bad


def test_pairs_have_no_raters(files, tmp_path, capsys):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"chosen": "A great film.", "rejected": "An awful film."}\n')
    (mean,) = main(Args(train=file, eval=(file,), out=tmp_path / "out", learning_rate=1e-3, device="cpu"))
    assert mean.half_width is None and "one rater" not in capsys.readouterr().out


def test_a_file_that_cannot_be_read_ends_it_before_training(files, tmp_path):
    train, _ = files
    with pytest.raises(FileNotFoundError, match="none.jsonl"):
        main(Args(train=train, eval=(tmp_path / "none.jsonl",), out=tmp_path / "out", loss="regression"))
    with pytest.raises(ValueError, match="--lora is not JSON"):
        main(Args(train=train, out=tmp_path / "out", loss="regression", lora="{r: 2}"))
