"""Entries of a comparison as texts and as YAML files."""

import pytest

from scripts.agent_arguments import EnvArgs, RunArgs
from scripts.experiments.entries import command_of, label, settings_of


def command(entry, tmp_path):
    return command_of(entry, RunArgs(tmp_path), EnvArgs("TextGenToy-v0"), None, "cpu")


def test_a_file_is_the_text_with_the_same_arguments(tmp_path):
    file = tmp_path / "distribution-matching.yaml"
    file.write_text(
        "# a comment\nlearning_rate: 3e-2\ntarget: {name: rlhf, beta: 0.5}\nalpha: null\ncap: 5\nn_envs: 16\n"
        "gradient_checkpointing: true\n"
    )
    text = (
        'distribution-matching:learning_rate=3e-2,target={"name": "rlhf", "beta": 0.5},alpha=None,cap=5,n_envs=16,'
        "gradient_checkpointing=True"
    )
    assert settings_of(str(file)) == settings_of(text)
    assert command(str(file), tmp_path) == command(text, tmp_path)
    other = tmp_path / "mine.yaml"
    other.write_text("agent: distribution-matching\n" + file.read_text().replace("learning_rate", "learning-rate"))
    assert command(str(other), tmp_path) == command(text, tmp_path)
    assert (label(str(file)), label(text)) == ("distribution-matching", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "rloo.yaml' must be a mapping from names of options to values"),
        ("", "must be a mapping"),
        ("1: 2\n", "must be a mapping"),
        ("a: [1\nb: 2\n", "rloo.yaml' is not YAML"),
        ("lr: 1\n", "rloo.yaml' has 'lr', which is no argument of rloo; accepted are"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    file = tmp_path / "rloo.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        command(str(file), tmp_path)


def test_a_file_that_is_not_there_or_is_of_no_agent(tmp_path):
    with pytest.raises(FileNotFoundError, match="rloo.yaml"):
        command(str(tmp_path / "rloo.yaml"), tmp_path)
    (tmp_path / "mine.yaml").write_text("kl_coef: 0\n")
    with pytest.raises(ValueError, match="unknown agent 'mine'"):
        command(str(tmp_path / "mine.yaml"), tmp_path)
    with pytest.raises(ValueError, match="has 'kl_coef' twice"):
        settings_of("rloo:kl_coef=1,kl_coef=2")
