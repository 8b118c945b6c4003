"""What the scripts share: an error is a line or two, its traceback is shown on request, JSON names its option."""

import re
import runpy
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import gymnasium as gym
import pytest
import tyro

from scripts.command_line import env_arguments, parse_json, run_script
from tests.helpers.scripts import error_of
from textgym.arguments import Count, PositiveShare
from textgym.scorers.base import ScorerError

SCRIPTS = Path(__file__).parents[2] / "scripts"


@dataclass
class Args:
    """Nothing but a number."""

    number: int = 1


def ends_with(error, *given):
    """What a script says that raises this error."""

    def main(args):
        raise error

    with pytest.raises(SystemExit) as ended:
        run_script(main, Args, given=given)
    return ended.value.code


@pytest.mark.parametrize(
    "error",
    [
        ValueError("n is 0; it must be 1"),
        FileNotFoundError("no directory 'x'"),
        ImportError('install "textgym[agents]"'),
        FloatingPointError("the loss is nan"),
        ScorerError("scorer 'a' failed"),
        gym.error.NameNotFound("Environment `TextGn` doesn't exist"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_for_users_are_their_message(error, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py"])
    assert ends_with(error) == f"train.py: {error}"


def test_of_other_errors_the_kind_and_the_place_are_told(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    for error in (KeyError("missing"), AssertionError(), ValueError()):
        said = ends_with(error)
        assert said.startswith(f"train.py: {type(error).__name__} in {__file__}, line ") and "--debug" in said
        assert len(said.splitlines()) == 1 and said.endswith(str(error))


def test_a_long_message_is_cut_to_two_lines():
    said = ends_with(ValueError("one\n\ntwo  \nthree\nfour"))
    assert said.partition(": ")[2] == "one\ntwo ... (--debug shows all of it)"
    assert ends_with(ValueError("one\ntwo\n")).partition(": ")[2] == "one\ntwo"


@pytest.mark.parametrize("given", [["--debug"], ["--number", "2", "--debug"], ["--debug", "--number", "2"]])
def test_debug_lets_the_error_through(given):
    def main(args):
        raise ValueError(args.number)

    with pytest.raises(ValueError, match="2" if "--number" in given else "1"):
        run_script(main, Args, given=given)


def test_arguments_reach_the_script_and_the_help_names_debug(capsys):
    got = []
    run_script(got.append, Args, "What it does.", given=["--number", "7"])
    assert got == [Args(7)]
    with pytest.raises(SystemExit, match="0"):
        run_script(got.append, Args, "What it does.", given=["--help"])
    said = capsys.readouterr().out
    assert "What it does." in said and "--debug" in said and "--number" in said


def test_ctrl_c_ends_without_a_word():
    assert ends_with(KeyboardInterrupt()) == 130


@dataclass
class Inner:
    """A part of other options."""

    seeds: Count = 1


@dataclass
class Outer:
    """Options with ranges, parts of them in a dataclass of their own."""

    inner: Annotated[Inner, tyro.conf.arg(name="")] = field(default_factory=Inner)
    top_p: PositiveShare | None = None
    names: tuple[str, ...] = ()
    out: Path = Path("runs")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "--seeds is 0; it must be an integer of at least 1"),
        (["--top-p", "1.5"], "--top-p is 1.5; it must be in (0, 1], or None"),
        (["--top-p", "nan"], "--top-p is nan; it must be in (0, 1], or None"),
    ],
)
def test_values_out_of_range_name_their_option(words, message):
    assert error_of(lambda args: None, Outer, *words) == message


def test_values_in_range_reach_the_script():
    got = []
    run_script(got.append, Outer, given=["--seeds", "3", "--top-p", "1", "--names", "a", "b", "--out", "x"])
    assert got == [Outer(Inner(3), 1.0, ("a", "b"), Path("x"))]


@pytest.mark.parametrize("name", ["scorer", "prompts"])
@pytest.mark.parametrize("text", ["{bad json", "[1,"])
def test_json_names_its_option(name, text):
    with pytest.raises(ValueError, match=rf"^--{name} is not JSON: .*: {re.escape(repr(text))}$"):
        env_arguments("{}", **{name: text})
    with pytest.raises(ValueError, match="^--env-kwargs is not JSON"):
        env_arguments(text)
    with pytest.raises(ValueError, match="^--lora is not JSON"):
        parse_json("lora", text)


@pytest.mark.parametrize("name", ["num_envs", "autoreset_mode"])
def test_what_a_script_sets_by_itself_is_no_argument_of_the_env(name):
    with pytest.raises(ValueError, match=f"^--env-kwargs has '{name}', which the script sets by itself; leave it out$"):
        env_arguments(f'{{"{name}": 3}}')


def test_what_is_no_json_is_a_name():
    assert env_arguments("{}", scorer="length", prompts=None) == {"scorer": "length"}
    assert env_arguments("{}", scorer=' {"name": "length"}') == {"scorer": {"name": "length"}}


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("sample", ["--env-id", "TextGn-v0"], "TextGn"),
        ("evaluate", ["--model", "/no/such/folder"], "no directory '/no/such/folder'"),
        ("compare", ["rlo"], "unknown agent 'rlo'; did you mean 'rloo'"),
        ("compare", ["rloo:klcoef=1"], "'klcoef', which is no argument of rloo; did you mean 'kl_coef'"),
        ("train", ["rlo", "--n-envs", "2"], "but is 'rlo'; did you mean 'rloo'"),
        ("train", ["--n-envs", "2", "rloo"], "the first word must be one of contrastive-lm, "),
        ("train", [], "but is nothing"),
        ("benchmark", ["env", "--env-kwargs", "{"], "--env-kwargs is not JSON"),
    ],
)
def test_every_script_ends_in_a_line_or_two(script, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / f"{script}.py"), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(sys.argv[0], run_name="__main__")
    said = str(ended.value.code)
    assert capsys.readouterr().out == "" and len(said.splitlines()) <= 2
    assert said.startswith(f"{script}.py: ") and message in said


@pytest.mark.subprocess
def test_a_process_ends_with_status_1_and_a_line_or_two(tmp_path):
    command = [sys.executable, str(SCRIPTS / "train.py"), "grpo", "--scorer", "{bad"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("train.py: --scorer is not JSON") and len(done.stderr.splitlines()) <= 2


def test_every_script_is_run_by_the_same_helper():
    entries = [path for path in SCRIPTS.glob("*.py") if "__main__" in path.read_text()]
    assert len(entries) > 8
    for path in entries:
        if path.name not in ("make_docs.py", "make_site.py"):  # no arguments; needs no package
            assert "    start_script(__file__)" in path.read_text(), path.name
