"""The pages in docs/agents: commands as typed, defaults and log names as they are."""

import csv
import re
import shlex

import pytest
import tyro

import agents
from agents.policy_gradient import PolicyGradient
from scripts.agent_pages import with_tables
from scripts.train import Args, main
from tests.helpers.docs import ROOT, blocks, logged_names, page
from textgym.arguments import arguments_of

AGENTS = {
    "reinforce": agents.REINFORCE,
    "rloo": agents.RLOO,
    "grpo": agents.GRPO,
    "ppo": agents.PPO,
    "distribution_matching": agents.DistributionMatching,
    "soft_q_learning": agents.SoftQLearning,
    "dpo": agents.DPO,
    "online_dpo": agents.OnlineDPO,
    "sft": agents.SFT,
    "contrastive_lm": agents.ContrastiveLM,
}
PAGES = sorted(file.stem for file in (ROOT / "docs" / "agents").glob("*.md"))
SLOW = ("distribution_matching", "dpo")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in AGENTS])
def test_commands_run_and_log_what_the_pages_say(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (line,) = blocks(page(f"agents/{name}"), "bash")
    python, script, *arguments = shlex.split(line)
    assert (python, script, arguments[0]) == ("python", "scripts/train.py", name.replace("_", "-"))
    if "--dataset" in arguments:  # which the page's Python writes
        exec("\n".join(blocks(page(f"agents/{name}"))), {})
    args = tyro.cli(Args, args=arguments)
    main(args)
    with (args.run.out / "progress.csv").open() as file:
        logged = set(csv.DictReader(file).fieldnames)
    conditional = {"train/clip_fraction", "train/kl_loss"} if name == "reinforce" else set()
    common = logged_names(page("agents/README")) if issubclass(AGENTS[name], PolicyGradient) else set()
    assert common | logged_names(page(f"agents/{name}")) - conditional <= logged


@pytest.mark.parametrize("name", PAGES)
def test_tables_are_written_from_the_code(name):
    assert with_tables(page(f"agents/{name}")) == page(f"agents/{name}"), "run `make docs`"
    assert "| argument | default | meaning |" not in page(f"agents/{name}")


def listed_in(name):
    return {row: line for line in page(f"agents/{name}").splitlines() for row in re.findall(r"^\| `(\w+)` \| `", line)}


def test_rows_by_hand():
    clip = "| `clip_range` | `0.2` | positive, or a function | how far the ratio of new to old"
    assert listed_in("ppo")["clip_range"].startswith(clip)
    assert listed_in("README")["gamma"] == "| `gamma` | `1.0` | in [0, 1] | discount per token |"
    assert listed_in("distribution_matching")["target"].startswith('| `target` | `{"name": "rlhf", "beta": 0.1}` |')
    assert listed_in("token_policy")["optimizer_class"].startswith("| `optimizer_class` | `Adam` |")
    assert r"D_f(pi \|\| p)" in listed_in("distribution_matching")["divergence"]  # a bar that ends no cell


@pytest.mark.parametrize("name", AGENTS)
def test_every_argument_is_on_the_agents_page_or_in_the_overview(name):
    documented = set(listed_in(name)) | set(listed_in("README"))
    assert set(arguments_of(AGENTS[name])) - {"policy", "env", "_init_setup_model"} <= documented
    # what only policy gradients take stands in a table of its own
    common, _, gradients = page("agents/README").partition("## Arguments of REINFORCE, RLOO, GRPO and PPO")
    assert "`kl_coef` |" not in common and "`kl_coef` |" in gradients
