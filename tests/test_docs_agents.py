"""The pages in docs/agents: snippets and commands as typed, defaults and log names as they are."""

import ast
import csv
import re
import shlex
from pathlib import Path

import pytest
import tyro

import agents
from agents.policy_gradient import PolicyGradient
from scripts.train import command_line, train
from textgym.arguments import arguments_of
from textgym.language_models.token_model import TokenModel

FOLDER = Path(__file__).parent.parent / "docs" / "agents"
AGENTS = {
    "reinforce": agents.REINFORCE,
    "rloo": agents.RLOO,
    "grpo": agents.GRPO,
    "ppo": agents.PPO,
    "distribution_matching": agents.DistributionMatching,
    "soft_q_learning": agents.SoftQLearning,
}


def page(name):
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def blocks(name, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page(name), re.M | re.S)


def documented_logs(name):
    return set(re.findall(r"`((?:rollout|train|target|time)/\w+)`", page(name)))


@pytest.mark.parametrize("name", [*AGENTS, "token_policy"])
def test_python_snippets_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(name, "python")
    exec(compile(code, f"{name}.md", "exec"), {})


@pytest.mark.parametrize("name", AGENTS)
def test_commands_run_and_log_what_the_pages_say(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (line,) = blocks(name, "bash")
    python, script, *arguments = shlex.split(line)
    assert (python, script, arguments[0]) == ("python", "scripts/train.py", name.replace("_", "-"))
    args = tyro.cli(command_line(), args=arguments)
    train(args)
    with (args.run.out / "progress.csv").open() as file:
        logged = set(csv.DictReader(file).fieldnames)
    conditional = {"train/clip_fraction", "train/kl_loss"} if name == "reinforce" else set()
    common = documented_logs("README") if issubclass(AGENTS[name], PolicyGradient) else set()
    assert common | documented_logs(name) - conditional <= logged


@pytest.mark.parametrize("name", ["README", *AGENTS, "token_policy"])
def test_defaults_are_those_of_the_code(name):
    documented = {"README": PolicyGradient, "token_policy": TokenModel, **AGENTS}[name]
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page(name), re.M)
    assert len(rows) >= 6
    for argument, default in rows:
        assert arguments_of(documented)[argument].default == ast.literal_eval(default), argument


@pytest.mark.parametrize("name", ["README", *AGENTS, "token_policy"])
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\((\w+\.md)\)", page(name)):
        assert (FOLDER / target).is_file()
