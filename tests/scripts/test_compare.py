"""`scripts/compare.py`: statistics against tables and hand values, what is written, what is reused, clear errors."""

import contextlib
import csv
import io
import json
import math
import os
import re
import shlex
import signal
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from matplotlib import image
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from scripts.agent_arguments import COMMANDS, EnvArgs, RunArgs
from scripts.compare import main
from scripts.experiments import runs
from scripts.experiments.comparison import COLORS, OF_FRONTIER, Comparison, curve, show_frontier
from scripts.experiments.entries import shell_command
from scripts.experiments.frontier import frontier_of
from scripts.experiments.runs import plan
from scripts.experiments.tables import readable
from scripts.experiments.zoo import Args, experiments_of
from tests.conftest import small_llama
from tests.helpers.docs import blocks, page
from textgym.evaluation import Frontier
from textgym.sb3 import callbacks
from textgym.sb3.callbacks import ShowProgress
from textgym.tokenizers import character_tokenizer

ENTRIES = ("rloo:learning_rate=1e-2", "rloo:learning_rate=1e-2,kl_coef=0")
T_95 = {2: 12.706, 3: 4.303}
"""P(|T| <= t) = 0.95 by the number of values, from the printed tables."""


def arguments(model, out, **changed):
    env = EnvArgs("TextGenChars-v0", n_envs=16)
    given = {"agents": ENTRIES, "seeds": 2, "total_timesteps": 300, "evaluation_episodes": 32, "out": out}
    given |= {"frontier": 40, "frontier_prompts": 3}
    return Args(**given | {"env": env, "model": model, "device": "cpu"} | changed)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_llama().save_pretrained(folder)
    character_tokenizer("abcd").to_pretrained().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """The folder of a comparison, and what it printed."""
    args = arguments(model, tmp_path_factory.mktemp("runs") / "compare")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main(args)
    return args.out, printed.getvalue()


def report_in(out):
    return json.loads((out / "compare.json").read_text())


def test_a_curve_by_hand(tmp_path):
    folders = [tmp_path / "0", tmp_path / "1"]
    header = "rollout/reward,time/total_timesteps,rollout/kl_to_reference\n"
    for folder, rows in zip(folders, ("0.1,10,0\n0.3,19,2\n0.5,40,5\n", "0.2,21,1\n0.6,39,4\n"), strict=True):
        folder.mkdir()
        (folder / "progress.csv").write_text(header + rows)
    # Two spans, as the second log has two rollouts: up to 20 tokens and up to 40.
    expected = [[(0 + 2) / 2, (0.1 + 0.3) / 2], [(5 + 1 + 4) / 3, (0.5 + 0.2 + 0.6) / 3]]
    np.testing.assert_allclose(curve(folders), expected)
    np.testing.assert_allclose(curve(folders, most=1), [[12 / 5, 1.7 / 5]])


def test_the_table_from_the_runs(finished):
    out, printed = finished
    report = report_in(out)
    assert list(report["table"]) == ["untrained", *ENTRIES]
    markdown = (out / "compare.md").read_text()
    for entry, row in report["table"].items():
        runs = [run["evaluation"] for run in report["runs"] if run["agent"] == entry]
        assert len(runs) == 2 and all(run["episodes"] == 32 for run in runs)
        values = {
            "reward": [run["reward"]["value"] for run in runs],
            "kl_to_reference": [run["kl_to_reference"]["value"] for run in runs],
            "distinct_2": [run["distinct_2"] for run in runs],
        }
        assert set(row) == set(values) | (set() if entry == "untrained" else set(row) & set(OF_FRONTIER))
        (line,) = (line for line in markdown.splitlines() if f"`{entry}`" in line)
        written = [float(number) for number in re.findall(r"[+-]?\d+\.\d+", line.rpartition("`")[2])]
        for (measure, (a, b)), mean, half_width in zip(values.items(), written[::2], written[1::2], strict=True):
            rounding = 0.006 if measure == "kl_to_reference" else 0.0006
            spread = T_95[2] * abs(a - b) / 2  # s = |a - b| / sqrt(2), over sqrt(2) seeds
            assert row[measure]["mean"] == pytest.approx((a + b) / 2)
            assert row[measure]["half_width"] == pytest.approx(spread, rel=1e-4)
            assert (mean, half_width) == pytest.approx(((a + b) / 2, spread), abs=rounding)
        for number in line.rpartition("`")[2].split("|")[1:-1]:
            assert number.strip() in printed
    assert "TextGenChars-v0, 300 tokens, 2 seeds" in printed and str(out / "compare") in printed


def test_every_run_is_kept_with_its_arguments_and_log(finished):
    out, _ = finished
    runs = {(run["agent"], run["seed"]): run for run in report_in(out)["runs"]}
    assert set(runs) == {(entry, seed) for entry in ("untrained", *ENTRIES) for seed in (0, 1)}
    for (entry, seed), run in runs.items():
        assert json.loads((out / run["folder"] / "run.json").read_text()) == run
        assert run["arguments"]["seed"] == seed and run["arguments"]["env"]["env_id"] == "TextGenChars-v0"
        assert {"python", "textgym", "torch"} <= set(run["versions"])
        if run["command"]:
            assert_same_command(run)
        kl = run["evaluation"]["kl_to_reference"]["value"]
        if entry == "untrained":
            assert run["tokens"] == 0 and kl == pytest.approx(0, abs=1e-5)
            continue
        assert kl > 0.05  # the policy that is measured is the trained one, the reference the untrained
        assert (run["arguments"]["agent"], run["arguments"]["learning_rate"]) == ("rloo", 1e-2)
        assert run["arguments"]["kl_coef"] == (0 if "kl_coef=0" in entry else 0.05)
        rows = list(csv.DictReader((out / run["folder"] / "progress.csv").open()))
        assert float(rows[-1]["time/total_timesteps"]) == run["tokens"] >= 300
        assert [float(row["train/kl_coef"]) for row in rows[1:]] == [run["arguments"]["kl_coef"]] * (len(rows) - 1)
        assert abs(float(rows[0]["rollout/kl_to_reference"])) < 1e-5 < abs(float(rows[-1]["rollout/kl_to_reference"]))


def assert_same_command(run):
    """The command that a run tells of has the run's arguments."""
    python, script, name, *options = shlex.split(run["command"])
    assert (python, script) == ("python", "scripts/train.py")
    again = tyro.cli(COMMANDS[name], args=["--out", "here", *options])
    found = {name: value for name, value in asdict(again).items() if name in run["arguments"]}
    assert len(found) > 20 and found == {name: run["arguments"][name] for name in found}
    assert again.run.total_timesteps == run["arguments"]["total_timesteps"]


def test_the_figure_shows_every_entry(finished):
    out, _ = finished
    pixels = image.imread(out / "compare.png")[..., :3]  # (height, width, 3)
    assert pixels.shape == (675, 1050, 3) and 0.01 < (pixels.min(-1) < 0.9).mean() < 0.3
    count = {color: (np.abs(pixels - to_rgb(color)).max(-1) < 0.02).sum() for color in ("black", *COLORS)}
    assert all(count[color] > 50 for color in ("black", *COLORS[:2])) and not any(count[c] for c in COLORS[2:])


def copied(finished, tmp_path):
    out = tmp_path / "compare"
    for file in finished[0].rglob("*"):
        if file.is_file():
            (out / file.relative_to(finished[0])).parent.mkdir(parents=True, exist_ok=True)
            (out / file.relative_to(finished[0])).write_bytes(file.read_bytes())
    return out


def executed(monkeypatch):
    """The runs that are not taken from the folder, as a list that fills."""
    repeated, execute = [], runs.execute
    spy = lambda run, args: repeated.append((run.entry, run.seed)) or execute(run, args)  # noqa: E731
    monkeypatch.setattr(runs, "execute", spy)
    return repeated


def test_finished_runs_are_not_repeated(model, finished, tmp_path, monkeypatch, capsys):
    out, runs = copied(finished, tmp_path), executed(monkeypatch)
    before = report_in(out)
    main(arguments(model, out))
    assert runs == [] and report_in(out) == before and capsys.readouterr().out.count(", before") == 6

    run = out / "rloo-learning_rate=1e-2-1" / "run.json"  # as an interruption leaves it
    begun = json.loads(run.read_text())
    run.write_text(json.dumps({"arguments": begun["arguments"]}))
    main(arguments(model, out))
    assert runs == [(ENTRIES[0], 1)]
    assert report_in(out)["table"] == before["table"]  # the seed makes the run

    del runs[:]
    main(arguments(model, out, agents=ENTRIES[:1], seeds=3))
    assert runs == [("untrained", 2), (ENTRIES[0], 2)]
    table = report_in(out)["table"]
    values = [
        json.loads((out / f"untrained-{i}" / "run.json").read_text())["evaluation"]["distinct_2"] for i in (0, 1, 2)
    ]
    assert table["untrained"]["distinct_2"] == {
        "mean": pytest.approx(np.mean(values)),
        "half_width": pytest.approx(T_95[3] * np.std(values, ddof=1) / math.sqrt(3), rel=1e-3),
    }


def test_other_runs_are_not_overwritten(model, finished, tmp_path):
    out = copied(finished, tmp_path)
    message = r"rloo-learning_rate=1e-2-0 is a run with total_timesteps 300, not 400; choose another --out"
    with pytest.raises(FileExistsError, match=message):
        main(arguments(model, out, total_timesteps=400))
    with pytest.raises(FileExistsError, match=r"untrained-0 is a run with evaluation_episodes 32, not 48"):
        main(arguments(model, out, evaluation_episodes=48))
    (out / "ppo-0").mkdir()
    (out / "ppo-0" / "progress.csv").touch()
    with pytest.raises(FileExistsError, match="ppo-0 holds other files"):
        main(arguments(model, out, agents=("ppo",)))
    assert [file.name for file in (out / "ppo-0").iterdir()] == ["progress.csv"]


def test_one_seed_has_no_interval_and_a_signal_leaves_what_is_finished(model, tmp_path, monkeypatch, capsys):
    class Interrupted(ShowProgress):
        """Ctrl-C after the first rollout."""

        def _on_rollout_end(self):
            os.kill(os.getpid(), signal.SIGINT)

    args = arguments(model, tmp_path, agents=("grpo",), seeds=1, total_timesteps=150)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(callbacks, "ShowProgress", Interrupted)
        main(args)
    assert stopped.value.code == 128 + signal.SIGINT
    assert "stopped; repeat the command to go on" in capsys.readouterr().out
    runs = executed(monkeypatch)
    main(args)
    assert runs == [("grpo", 0)]
    assert "±" not in (tmp_path / "compare.md").read_text() + capsys.readouterr().out
    assert report_in(tmp_path)["table"]["grpo"]["reward"]["half_width"] is None


def test_a_run_that_fails_is_named_and_stops_no_other(model, tmp_path, capsys, monkeypatch):
    bad, good = "rloo:learning_rate=1e30", "rloo:learning_rate=1e-2"
    args = arguments(model, tmp_path, agents=(bad, good), seeds=1)
    with pytest.raises(SystemExit, match="1 runs failed"):
        main(args)
    message = r"rloo-learning_rate=1e30-0\): rloo:learning_rate=1e30, seed 0: training stopped: the .* update 1"
    for text in ((tmp_path / "compare.md").read_text(), " ".join(capsys.readouterr().out.split())):
        assert re.search(rf"failed: {bad}, seed 0 \({message}", text)
    report = report_in(tmp_path)
    assert report["table"][bad] == {} and set(report["table"][good]) >= {"reward", "distinct_2"}
    assert [r["agent"] for r in report["runs"] if "error" in r] == [bad]
    log = (tmp_path / "rloo-learning_rate=1e30-0" / "output.log").read_text()
    assert "Traceback" in log and "FloatingPointError" in log

    repeated = executed(monkeypatch)
    with pytest.raises(SystemExit):
        main(args)
    assert repeated == [(bad, 0)]  # which is tried again


def test_without_a_model_the_env_brings_its_own(tmp_path, monkeypatch):
    groups, evaluate = [], runs.evaluate

    def spy(policy, episodes):
        groups.append(policy.env.unwrapped.num_generations)
        return evaluate(policy, episodes)

    monkeypatch.setattr(runs, "evaluate", spy)
    env = EnvArgs("TextGenToy-v0", n_envs=16)
    main(arguments(None, tmp_path, env=env, agents=("reinforce:kl_coef=0",), seeds=1, total_timesteps=100))
    assert groups == [1, 1]  # every text that is measured has a prompt of its own
    rows = report_in(tmp_path)["table"]
    assert rows["untrained"]["kl_to_reference"]["mean"] == pytest.approx(0, abs=1e-5)
    assert rows["reinforce:kl_coef=0"]["kl_to_reference"]["mean"] != 0


@pytest.mark.parametrize("name", COMMANDS)
def test_an_entry_is_what_the_training_script_takes(name, tmp_path):
    args = arguments("some/model", tmp_path, device="cuda")
    expected = asdict(COMMANDS[name](RunArgs(tmp_path, 300), env=args.env))
    assert asdict(args.training_of(name)) == expected | {
        "model": "some/model",
        "device": "cuda",
    }


def test_an_entry_may_have_rows_of_its_own(tmp_path):
    (_, run) = plan(arguments("m", tmp_path, agents=('grpo:n_envs=64,num_generations=16,lora={"r": 2}',), seeds=1))
    assert run.command.env == EnvArgs("TextGenChars-v0", n_envs=64, num_generations=16)
    assert run.arguments["env"] == asdict(EnvArgs("TextGenChars-v0", n_envs=64, num_generations=16))
    assert shell_command(run.command).endswith(
        "grpo --total-timesteps=300 --env-id=TextGenChars-v0 --num-generations=16 --model=m "
        "'--lora={\"r\": 2}' --device=cpu"
    )


def test_a_comparison_of_which_every_run_failed_says_why(tmp_path):
    given = {"env": {"env_id": "A"}, "total_timesteps": 10, "evaluation_episodes": 8}
    records = [{"agent": a, "seed": 0, "folder": f"{a}-0", "error": "no service", "arguments": given} for a in "ab"]
    found = Comparison([records[0] | {"agent": "untrained"}, records[1]], tmp_path)
    assert found.write().startswith("written: ") and (tmp_path / "compare.png").is_file()
    assert found.markdown().count("no service") == 2 and "| `untrained` | - | - | - |" in found.markdown()


def test_the_band_of_the_frontier_is_its_interval():
    """Of three prompts it is Student's, 4.303 standard errors of their mean at a KL of 0."""
    rewards = torch.rand(3, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    axes = Figure().subplots()
    show_frontier(axes, Frontier(rewards))
    kl, reward = axes.collections[0].get_paths()[0].vertices.T
    assert np.ptp(reward[kl == 0]) / 2 == pytest.approx(T_95[3] * rewards.mean(-1).std().item() / 3**0.5, rel=1e-3)


def test_several_ids(tmp_path):
    experiments = experiments_of(arguments(None, tmp_path, env_ids=("TextGenToy-v0", "TextGenWords-v0")))
    assert [(e.env.env_id, e.env.n_envs, e.out) for e in experiments] == [
        ("TextGenToy-v0", 16, tmp_path / "TextGenToy-v0"),
        ("TextGenWords-v0", 16, tmp_path / "TextGenWords-v0"),
    ]
    assert all(run.arguments["env"]["env_id"] == e.env.env_id for e in experiments for run in plan(e))


def test_values_have_their_types(tmp_path):
    entry = 'grpo:lora={"r": 2, "lora_alpha": 4},n_epochs=2,clip_range=None,scale_rewards=none,kl_coef=-1e-3'
    command = arguments("m", tmp_path).training_of(entry)
    assert json.loads(command.lora) == {"r": 2, "lora_alpha": 4}
    assert (command.n_epochs, command.clip_range, command.scale_rewards, command.kl_coef) == (2, None, "none", -1e-3)
    assert readable("rloo:kl_coef=1,gamma=1") == "rloo: kl_coef=1, gamma=1"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"agents": ("rlo",)},
            rf"unknown agent 'rlo'; did you mean 'rloo'.*; accepted are {re.escape(str(sorted(COMMANDS)))}$",
        ),
        (
            {"agents": ("rloo:lr=1",)},
            "'rloo:lr=1' has 'lr', which is no argument of rloo; .*'learning_rate'",
        ),
        ({"agents": ("rloo:gae_lambda=1",)}, "has 'gae_lambda', which is no argument of rloo"),
        ({"agents": ("ppo:kl_coef",)}, r"'kl_coef' in 'ppo:kl_coef' is not name=value"),
        ({"agents": ("ppo:seed=3",)}, "has 'seed', which is no argument of ppo"),
        ({"agents": ("ppo", "rloo", "ppo")}, "two of .* share one"),
        ({"agents": ()}, "at least one agent"),
        ({"evaluation_episodes": 40}, "--evaluation-episodes 40 is not a multiple of --n-envs 16"),
    ],
)
def test_clear_errors(changed, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        main(arguments("m", tmp_path, **changed))
    assert not list(tmp_path.iterdir())


def test_a_value_of_a_wrong_type_says_what_is_accepted(tmp_path, capsys):
    with pytest.raises(SystemExit):
        plan(arguments("m", tmp_path, agents=("rloo:kl_penalty=k9",)))
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "'k9' for argument '--kl-penalty'. Expected one of ('reward', 'k2', 'k3')" in error
    assert "python scripts/train.py rloo --help" in error


def test_the_command_line():
    line = "rloo ppo:n_epochs=2 --env-id TextGenChars-v0 --scorer length --seeds 5 --out here --n-envs 8"
    args = tyro.cli(Args, args=line.split())
    assert args.agents == ("rloo", "ppo:n_epochs=2") and args.seeds == 5 and args.out == Path("here")
    assert args.env == EnvArgs("TextGenChars-v0", scorer="length", n_envs=8)
    assert args.model is None and args.evaluation_episodes == 256


def test_the_commands_of_the_page_and_its_table(monkeypatch, tmp_path):
    text = page("compare")
    monkeypatch.chdir(tmp_path)
    for command in "".join(blocks(text, "bash")).replace("\\\n", " ").strip().splitlines():
        python, script, *options = shlex.split(command)
        if script == "scripts/search.py" or ".yaml" in command:  # which is written first
            continue
        assert (python, script) == ("python", "scripts/compare.py")
        args = tyro.cli(Args, args=options)
        assert len(plan(args)) == args.seeds * (1 + len(args.agents))
    named = set(re.findall(r"`(compare\.\w+|run\.json|progress\.csv)`", text))
    assert named == {"compare.json", "compare.md", "compare.png", "run.json", "progress.csv"}


def test_the_distance_from_the_frontier(tmp_path):
    """Rewards of 0 and 1 with base rate p: the least KL for the mean q is that of two coins."""
    p, rewards, kls = 0.2, (0.5, 0.6, 0.7), (1.0, 1.2, 0.8)
    frontier = Frontier(torch.tensor([[0.0, 1.0]]), torch.tensor([[1 - p, p]]).double().log())
    evaluations = [
        {"reward": {"value": r}, "kl_to_reference": {"value": k}, "distinct_2": 0.5}
        for r, k in zip((0.2, *rewards), (0.0, *kls), strict=True)
    ]
    agents = ["untrained", *["rloo"] * 3]
    records = [
        {"agent": a, "seed": i, "evaluation": e} for i, (a, e) in enumerate(zip(agents, evaluations, strict=True))
    ]
    found = Comparison(records, tmp_path, frontier).summary
    assert not set(found["untrained"]) & set(OF_FRONTIER)
    least = 0.6 * math.log(0.6 / p) + 0.4 * math.log(0.4 / (1 - p))
    t = math.log(0.6 / 0.4 * (1 - p) / p)  # d least / d q
    times = found["rloo"]["times_least_kl"]
    assert times.mean == pytest.approx(1.0 / least)
    linear = [k / least - t * r / least**2 for r, k in zip(rewards, kls, strict=True)]
    assert times.half_width == pytest.approx(T_95[3] * np.std(linear, ddof=1) / math.sqrt(3), rel=1e-3)
    most = frontier.reward_within(1.0).value
    assert found["rloo"]["share_of_attainable"].mean == pytest.approx((0.6 - p) / (most - p))


def test_the_frontier_is_sampled_once(model, tmp_path):
    args = arguments(model, tmp_path, frontier=20, frontier_prompts=3)
    first = frontier_of(args)
    assert first.rewards.shape == (1, 20) and first.num_prompts == 1
    written = json.loads((tmp_path / "frontier" / "run.json").read_text())
    written["evaluation"]["rewards"][0][0] += 1
    (tmp_path / "frontier" / "run.json").write_text(json.dumps(written))
    assert frontier_of(args).rewards[0, 0] == first.rewards[0, 0] + 1
    with pytest.raises(FileExistsError, match="frontier 20, not 30"):
        frontier_of(arguments(model, tmp_path, frontier=30, frontier_prompts=3))
    assert frontier_of(arguments(model, tmp_path, frontier=0)) is None
