"""Options from a YAML file: the command line counts more, and what a training writes is what it was told."""

import csv
import re

import pytest

from scripts.agent_arguments import COMMANDS
from scripts.command_line import parse, run_script
from scripts.config_files import AGENT, expanded, values_of, write
from scripts.train import Args
from scripts.train import main as train
from textgym.sb3.logs import CLOCKS


@pytest.fixture
def config(tmp_path):
    """A function that writes a file and returns its name."""

    def make(text):
        (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
        return str(tmp_path / "run.yaml")

    return make


EVERYTHING = """
agent: grpo
n_envs: 8
learning-rate: 1e-4
lora: {r: 4}
resume: false
eval_scorers: [repetition, {name: keyword, keywords: [a]}]
out: runs/x
target_kl: null
"""


def test_values_become_words_and_the_command_line_counts_more(config):
    args = parse(Args, None, ["--config", config(EVERYTHING), "--n-envs", "16", "--eval-episodes=8"])
    assert (args.algorithm.__name__, args.env.n_envs, args.learning_rate, args.lora) == ("GRPO", 16, 1e-4, '{"r": 4}')
    assert args.evaluation.eval_scorers == ("repetition", '{"name": "keyword", "keywords": ["a"]}')
    assert args.evaluation.eval_episodes == 8 and args.target_kl is None and not args.run.resume
    assert parse(Args, None, ["grpo", "--resume", f"--config={config(EVERYTHING)}"]).run.resume


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_written_is_read_again(name, tmp_path):
    given = [
        name,
        "--env-kwargs",
        '{"split": "train", "max_new_tokens": 8}',
        "--eval-pass-at",
        "1",
        "2",
        "--dtype",
        "bfloat16",
    ]
    args = parse(Args, None, [*given, "--out", str(tmp_path), "--temperature", "0.5", "--peft", '{"peft_type": "IA3"}'])
    write(tmp_path / "run.yaml", {AGENT: name, **values_of(args)})
    assert parse(Args, None, ["--config", str(tmp_path / "run.yaml")]) == args


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_envs: 8\nn-envs: 9", "has \\['n-envs'\\] more than once"),
        ("- n_envs", "must be a mapping from names of options to values"),
        ("8: n_envs", "must be a mapping"),
        ("", "must be a mapping"),
        ("n_envs: [", "is not YAML that can be read"),
        ("agent: ppo", "is for the agent 'ppo', and 'grpo' is asked for"),
        ("n_envs: 0", "--n-envs is 0; it must be an integer of at least 1"),
        ("learning_rate: fast", None),
        ("kl_coeff: 1", None),
    ],
)
def test_a_mistake_in_the_file_is_told(text, message, config, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(Args, None, ["grpo", "--config", config(text)])
    if message is None:  # by tyro, as on the command line
        assert ended.value.code == 2 and f"--{text[:7].replace('_', '-')}" in capsys.readouterr().err
    else:
        assert re.search(message, str(ended.value.code))


@pytest.mark.parametrize("words", [["--config"], ["--config", "a", "--config", "b"], ["--config", "missing.yaml"]])
def test_one_file_that_is_there(words):
    with pytest.raises((ValueError, FileNotFoundError)):
        expanded(["grpo", *words])


def test_names_of_other_libraries_are_told_ours():
    with pytest.raises(SystemExit, match="there is no option --lr; here it is --learning-rate"):
        parse(Args, None, ["grpo", "--lr", "1"])


def test_a_run_can_be_repeated_from_its_file(tmp_path):
    words = [
        "reinforce",
        "--env-id",
        "TextGenToy-v0",
        "--n-envs",
        "8",
        "--total-timesteps",
        "80",
        "--learning-rate",
        "0.1",
    ]
    run_script(train, Args, given=[*words, "--out", str(tmp_path / "one")])
    run_script(train, Args, given=["--config", str(tmp_path / "one" / "run.yaml"), "--out", str(tmp_path / "two")])
    rows = [list(csv.DictReader((tmp_path / name / "progress.csv").open())) for name in ("one", "two")]
    kept = [[{key: value for key, value in row.items() if key not in CLOCKS} for row in table] for table in rows]
    assert kept[0] == kept[1] and len(kept[0]) > 1
