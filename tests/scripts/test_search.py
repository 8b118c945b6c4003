# /// script
# dependencies = ["textgym[agents]", "optuna>=4.2"]
# ///
"""`scripts/search.py`; run by tests/recipes/test_in_environments.py too, where optuna is installed."""

import json
from dataclasses import replace

import pytest

from scripts.agent_arguments import EnvArgs
from scripts.config_files import expanded
from scripts.experiments import runs
from scripts.experiments.entries import settings_of
from scripts.experiments.search import Search
from scripts.experiments.search_space import Dimension, dimension
from scripts.search import Args, main


@pytest.mark.parametrize(
    ("agent", "text", "expected"),
    [
        ("ppo", "learning_rate", Dimension("learning_rate", low=1e-5, high=1e-3, default=1e-4)),
        ("ppo", "n_epochs", Dimension("n_epochs", low=1, high=40, default=4)),
        ("ppo", "gae_lambda", Dimension("gae_lambda", low=0.0, high=1.0, default=0.95)),
        ("ppo", "normalize_advantage", Dimension("normalize_advantage", (False, True), default=True)),
        ("online-dpo", "loss_type", Dimension("loss_type", ("sigmoid", "ipo"), default="sigmoid")),
        ("ppo", "n_epochs=1..8", Dimension("n_epochs", low=1, high=8, default=4)),
        ("ppo", "learning_rate=1..2", Dimension("learning_rate", low=1.0, high=2.0)),
        ("ppo", "batch_size=4|8|None", Dimension("batch_size", (4, 8, None))),
    ],
)
def test_dimensions_are_around_defaults_and_within_ranges(agent, text, expected):
    found = dimension(agent, text)
    assert (found.name, found.choices, found.default) == (expected.name, expected.choices, expected.default)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert type(found.low) is type(expected.low)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "ppo has no argument 'lr'"),
        ("ent_coef", "ent_coef is 0.0 by default, which says nothing of its range; give one, as ent_coef=low..high"),
        ("micro_batch_size", "micro_batch_size is None by default"),
        ("gae_lambda=0..2", r"gae_lambda is 2; it must be in \[0, 1\]"),
        ("n_epochs=0|1", "n_epochs is 0; it must be an integer of at least 1"),
        ("n_epochs=4..1", "no range"),
        ("kl_penalty=k1|k9", "kl_penalty is 'k1'; accepted are"),
    ],
)
def test_what_cannot_be_searched_over(text, message):
    with pytest.raises(ValueError, match=message):
        dimension("ppo", text)


def args_of(tmp_path, *names, **changed):
    env = EnvArgs("TextGenToy-v0", n_envs=16, num_generations=16)
    given = {"trials": 3, "seeds": 2, "beta": 0.5, "total_timesteps": 200, "evaluation_episodes": 128, "device": "cpu"}
    return Args(names, **given | {"env": env, "out": tmp_path / "out", "save": tmp_path / "rloo.yaml"} | changed)


def counted(monkeypatch):
    done, execute = [], runs.execute
    monkeypatch.setattr(runs, "execute", lambda run, args: done.append(run.folder) or execute(run, args))
    return done


def test_the_best_trial_is_that_with_the_most_reward_less_kl(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    done, args = counted(monkeypatch), args_of(tmp_path, "rloo:kl_coef=0.5", "learning_rate=1e-4..1e-1")
    found = main(args)
    assert len(done) == 2 + 3 * 2  # the untrained model is shared
    values = {}
    for folder in args.out.glob("rloo*"):
        record = json.loads((folder / "run.json").read_text())
        reward, kl = (record["evaluation"][name]["value"] for name in ("reward", "kl_to_reference"))
        values.setdefault(record["agent"], []).append(reward - 0.5 * kl)
    means = {agent: sum(two) / 2 for agent, two in values.items()}
    best = max(means, key=means.get)
    assert len(means) == 3 and settings_of(best)[1] == found and "rloo:kl_coef=0.5,learning_rate=0.0001" in means
    assert settings_of(str(args.save)) == ("rloo", {"n_envs": "16", "num_generations": "16"} | found)
    assert "--kl-coef" in expanded(["--config", str(args.save)]) and expanded(["--config", str(args.save)])[0] == "rloo"
    head = args.save.read_text().splitlines()
    assert head[0].startswith("# python scripts/search.py") and f"= {means[best]:.3f}" in head[1]

    assert main(args) == found and len(done) == 8  # repeats nothing
    main(replace(args, trials=4))
    assert len(done) == 10


def test_a_search_that_was_cut_off_goes_on_with_its_trial(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    args = args_of(tmp_path, "rloo", "learning_rate=1e-3..1e-1", seeds=1, trials=1)
    search = Search(args, "rloo", [dimension("rloo", "learning_rate=1e-3..1e-1")], 0.5)
    cut_off = search.entry_of(search.study.ask())
    main(args)
    (folder,) = args.out.glob("rloo*")
    assert json.loads((folder / "run.json").read_text())["agent"] == cut_off


def test_a_trial_that_fails_ends_no_search(tmp_path, monkeypatch, capsys):
    pytest.importorskip("optuna")
    args = args_of(tmp_path, "rloo", "n_envs=16|15", seeds=1, trials=4, at_once=2)
    assert main(args) == {"n_envs": "16"}
    assert "failed: " in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="all 1 trials failed"):
        main(args_of(tmp_path, "rloo", "n_envs=15|17", trials=1, seeds=1))


def test_an_agent_and_dimensions_are_needed(tmp_path):
    for names in ((), ("rloo",), ("learning_rate", "n_epochs")):
        with pytest.raises(ValueError, match=f"^'{' '.join(names)}' is no search: the agent comes first"):
            main(args_of(tmp_path, *names))
