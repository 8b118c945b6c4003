"""Scores and the zoo: both ends of the scale against the exact optimum, aggregates, and what remaking them says."""

import json
import math

import gymnasium as gym
import pytest
import torch

from scripts.agent_arguments import EnvArgs
from scripts.compare import main
from scripts.experiments import score_tables, zoo
from scripts.experiments.comparison import Comparison
from scripts.experiments.entries import label, shell_command
from scripts.experiments.runs import plan
from scripts.experiments.score_tables import differences, known_scores, markdown, zoo_page
from scripts.experiments.scores import Scale, Scores, scale_of
from scripts.experiments.zoo import CONFIGS, Args, experiments_of
from tests.helpers.docs import page
from textgym.evaluation import Frontier, Interval, interquartile_mean, probability_of_improvement
from textgym.exact import TokenTree, soft_optimal

TOY = EnvArgs("TextGenToy-v0", n_envs=64)


def arguments(out, **changed):
    given = {"env": TOY, "out": out, "device": "cpu", "beta": 0.5, "frontier": 0}
    return Args(**given | changed)


def test_the_scale_is_that_of_the_soft_optimum(tmp_path, monkeypatch):
    """A policy pi = p_beta scores 1: E[r] - beta KL = beta log E_a exp(r / beta)."""
    env = gym.make("TextGenToy-v0")
    tree, reference = TokenTree.of(env), torch.tensor(env.unwrapped.reference_logits)
    rewards = tree.scores(env)["reward"]
    scale = scale_of(arguments(tmp_path))
    optimum = soft_optimal(tree, reference, rewards, 0.5)
    assert scale.is_exact and scale.best == pytest.approx(optimum.values[0].item(), abs=1e-5)
    assert scale.start == pytest.approx(tree.expectation(reference, rewards).item(), abs=1e-5)
    reward, kl = (float(f) for f in (tree.expectation(optimum.policy, rewards), tree.kl(optimum.policy, reference)))
    for expected, values in (
        (1, (reward, kl)),
        (0, (scale.start, 0)),
        (-0.5 / (scale.best - scale.start), (scale.start, 1)),
    ):
        evaluation = dict(zip(("reward", "kl_to_reference"), ({"value": value} for value in values), strict=True))
        assert scale.score({"evaluation": evaluation}) == pytest.approx(expected, abs=1e-5)

    written = json.loads((tmp_path / "scale" / "run.json").read_text())
    written["evaluation"]["best"] = 7.0
    (tmp_path / "scale" / "run.json").write_text(json.dumps(written))
    assert scale_of(arguments(tmp_path)).best == 7  # it is not computed again
    with pytest.raises(FileExistsError, match="beta 0.5, not 0.4"):
        scale_of(arguments(tmp_path, beta=0.4))


def test_where_completions_are_too_many_the_scale_is_sampled(tmp_path):
    reviews = {"env": EnvArgs(n_envs=32), "frontier_prompts": 4}
    with pytest.raises(ValueError, match="leave out --frontier 0"):
        scale_of(arguments(tmp_path, **reviews))
    scale = scale_of(arguments(tmp_path / "a", **reviews, frontier=16, beta=4.0))
    assert not scale.is_exact and scale.best > scale.start
    with pytest.raises(
        ValueError, match=r"--beta: beta=0.001 is below .*; take a larger one, or more texts with --front"
    ):
        scale_of(arguments(tmp_path / "b", **reviews, frontier=16, beta=0.001))


def comparison(tmp_path, env_id, **rewards):
    records = [
        {
            "agent": agent,
            "seed": seed,
            "tokens": 10,
            "training_cpu_seconds": 1.0,
            "command": None,
            "arguments": {"env": {"env_id": env_id}, "total_timesteps": 10, "evaluation_episodes": 8},
            "evaluation": {"reward": {"value": reward}, "kl_to_reference": {"value": 0.5}, "distinct_2": 0.1},
        }
        for agent, found in rewards.items()
        for seed, reward in enumerate(found)
    ]
    return Comparison(records, tmp_path)


def test_scores_and_their_aggregates_by_hand(tmp_path):
    first = comparison(tmp_path, "A", untrained=[1.5, 1.5], ppo=[2.5, 3.5], rloo=[2.5, 2.0])
    second = comparison(tmp_path, "B", untrained=[1, 1], ppo=[5, 6, 7], sft=[9])
    scores = Scores([first, second], [Scale(1.0, 1.0, 3.0, True), Scale(2.0, 0.0, 10.0, False)])
    assert scores.of["ppo"] == {"A": [0.5, 1.0], "B": [0.4, 0.5, 0.6]}  # (2.5 - 0.5 - 1) / 2, (5 - 2 * 0.5) / 10
    assert scores.of["rloo"] == {"A": [0.5, 0.25]} and scores.complete == ["untrained", "ppo"]
    report = scores.to_json()
    ppo = report["all"]["ppo"]
    assert (
        ppo["interquartile_mean"]["value"] == interquartile_mean([[0.5, 1.0], [0.4, 0.5, 0.6]]) == (0.5 + 0.5 + 0.6) / 3
    )
    assert ppo["mean"]["mean"] == (0.75 + 0.5) / 2 and report["ids"]["A"]["agents"]["ppo"]["score"]["mean"] == 0.75
    assert report["runs"][2] == {
        "env_id": "A",
        "agent": "ppo",
        "seed": 0,
        "tokens": 10,
        "training_cpu_seconds": 1.0,
        "command": None,
        "reward": 2.5,
        "kl_to_reference": 0.5,
        "distinct_2": 0.1,
        "score": 0.5,
    }
    assert len(report["runs"]) == 12
    # On one id, two agents that both have scores there:
    pair = Scores([first], [Scale(1.0, 1.0, 3.0, True)]).to_json()
    expected = probability_of_improvement([[0.5, 1.0]], [[0.5, 0.25]])
    assert pair["improvement"]["ppo"]["rloo"]["value"] == expected == 3.5 / 4
    text = markdown(pair)
    assert "| ppo | 0.750 ± 3.177 | +3.000 ± 6.353 | 0.50 ± 0.00 | 0.100 ± 0.000 |" in text
    assert (
        "| ppo |  | 0.88 |" in text
        and "Score 0 is a reward of 1.000, 1 the most reward - 1 KL, 3.000; both computed" in " ".join(text.split())
    )
    assert text.index("| ppo |") < text.index("| rloo |") < text.index("| untrained |")  # the best first


def test_best_of_n_stands_beside_the_agents(tmp_path):
    """Of rewards 0 and 1 with a fifth of ones: the best of 4 of 60 texts misses all ones with C(48, 4) / C(60, 4)."""
    rewards = torch.tensor([[1.0] * 12 + [0.0] * 48, [0.0] * 48 + [1.0] * 12])
    found = comparison(tmp_path, "A", untrained=[0.2, 0.2], ppo=[0.5, 0.6])
    found = Comparison(found.records, tmp_path, Frontier(rewards, num_prompts=2))
    expected, kl = 1 - math.comb(48, 4) / math.comb(60, 4), math.log(4) - 3 / 4
    best = found.best_of_n["best of 4"]
    assert best["reward"].mean == pytest.approx(expected) and best["kl_to_reference"] == Interval(kl, None)
    assert best["times_least_kl"].mean == pytest.approx(kl / found.frontier.least_kl(expected).value)
    most = found.frontier.reward_within(kl).value
    assert best["share_of_attainable"].mean == pytest.approx((expected - 0.2) / (most - 0.2))
    report = Scores([found], [Scale(0.5, 0.2, 0.6, False)]).to_json()
    assert "best of 4" not in report["all"]  # it is no agent, and elsewhere there may be no frontier
    text = markdown(report)
    assert (
        f"| best of 4 | {(expected - 0.5 * kl - 0.2) / 0.4:.3f}" in text and "its KL is the most that it can be" in text
    )
    assert "| times the least KL |" in text and "| `best of 4` |" in found.markdown()


def test_only_what_differs_by_more_than_the_intervals_is_told(tmp_path):
    def report(*rewards):
        return Scores([comparison(tmp_path, "A", ppo=rewards)], [Scale(1.0, 0.0, 1.0, True)]).to_json()

    half_width = Interval.of([1.0, 1.1]).half_width
    known, within = report(1.0, 1.1), math.hypot(half_width, half_width) - 0.01
    assert differences(report(1.0 + within, 1.1 + within), known) == []
    (line,) = differences(report(1.02 + within, 1.12 + within), known)
    assert line.startswith("A: ppo scores ") and "was known" in line
    known["ids"]["A"]["agents"]["rloo"] = known["ids"]["A"]["agents"]["ppo"]
    assert differences(report(1.0, 1.1), known) == ["A: rloo is only in one of both"]


def test_the_zoo_is_remade_and_repeats_nothing(tmp_path, monkeypatch, capsys):
    configs = tmp_path / "configs"
    (configs / "TextGenToy-v0").mkdir(parents=True)
    (configs / "zoo.yaml").write_text(
        "TextGenToy-v0: {beta: 0.5, n_envs: 16, total_timesteps: 100, seeds: 2, evaluation_episodes: 32, frontier: 0}\n"
    )
    for agent in ("rloo", "reinforce"):
        (configs / "TextGenToy-v0" / f"{agent}.yaml").write_text("learning_rate: 1e-2\nkl_coef: 0.5\n")
    monkeypatch.setattr(zoo, "CONFIGS", configs)
    monkeypatch.setattr(score_tables, "KNOWN", tmp_path / "zoo.json")
    args = Args(zoo=True, out=tmp_path / "out", device="cpu")
    main(args)
    report = json.loads((args.out / "scores.json").read_text())
    assert list(report["ids"]["TextGenToy-v0"]["agents"]) == ["untrained", "reinforce", "rloo"]
    assert len(report["runs"]) == 6 and {"python", "textgym"} <= set(report["versions"]) and report["command"]
    assert all("--learning-rate=0.01" in run["command"] for run in report["runs"] if run["agent"] != "untrained")
    (tmp_path / "zoo.json").write_text(json.dumps(report))
    capsys.readouterr()
    main(args)
    told = capsys.readouterr().out
    assert told.count(", before") == 6 and "all scores are within the intervals of those that are checked in" in told
    assert markdown(report) in zoo_page(report)


@pytest.mark.parametrize(
    ("text", "changed", "message"),
    [
        ("A: {seeds: 0}", {}, "zoo.yaml, A: --seeds is 0"),
        ("A: {sedes: 1}", {}, "zoo.yaml, A: .*unexpected keyword argument 'sedes'"),
        ("A: {}", {"env_ids": ("B",)}, r"\['B'\] are not in the zoo; accepted are \['A'\]"),
        ("A: {}", {"agents": ("ppo",)}, r"leave out \['ppo'\]"),
    ],
)
def test_a_wrong_zoo(tmp_path, monkeypatch, text, changed, message):
    monkeypatch.setattr(zoo, "CONFIGS", tmp_path)
    (tmp_path / "zoo.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        experiments_of(Args(zoo=True, **changed))


def test_the_page_is_made_of_the_scores_that_are_checked_in():
    assert page("zoo") == zoo_page(known_scores())


def test_the_scores_that_are_checked_in_are_of_the_checked_in_arguments(tmp_path):
    """Every agent and seed of every id, by the command that its file of arguments stands for."""
    report = known_scores()
    experiments = experiments_of(Args(zoo=True, out=tmp_path, device="cpu"))
    assert list(report["ids"]) == [experiment.env.env_id for experiment in experiments]
    expected = {
        (experiment.env.env_id, label(run.entry), run.seed): run.command and shell_command(run.command)
        for experiment in experiments
        for run in plan(experiment)
    }
    found = {(run["env_id"], run["agent"], run["seed"]): run["command"] for run in report["runs"]}
    assert found == expected and len(report["runs"]) == len(found)
    for experiment in experiments:
        of_id = report["ids"][experiment.env.env_id]
        assert of_id["scale"]["beta"] == experiment.beta and not of_id["failed"]
        assert of_id["title"].endswith(f"{experiment.total_timesteps:,} tokens, {experiment.seeds} seeds")
        assert f"of {experiment.evaluation_episodes} fresh texts" in of_id["caption"]
        assert "times_least_kl" in of_id["agents"]["rloo"] or not experiment.frontier


def test_an_agent_of_the_zoo_is_the_same_agent_everywhere():
    """A row of the table over ids is one method: the same class, and what is not tuned has one value."""
    experiments = experiments_of(Args(zoo=True))
    assert len({frozenset(map(label, experiment.agents)) - {"online-dpo"} for experiment in experiments}) == 1
    kinds = {}
    for experiment in experiments:
        assert (CONFIGS / experiment.env.env_id).is_dir()
        for entry in experiment.agents:
            command = experiment.training_of(entry)
            kind = tuple(getattr(command, name, None) for name in ("divergence", "proposal", "baseline", "kl_penalty"))
            assert kinds.setdefault(label(entry), (command.algorithm, kind)) == (command.algorithm, kind)
            price = getattr(command, "kl_coef", None) or getattr(command, "beta", None)
            last = str(price or json.loads(command.target)["beta"]).rpartition(":")[2]  # a price may fall
            assert float(last) >= experiment.beta
