"""All pages: their links, their Python, their commands, and what `docs/extend.md` counts."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import torch

from scripts.command_line import parse
from tests.helpers.changes import changed_copy, changes
from tests.helpers.docs import ROOT, blocks, page, run_python

PAGES = {name: page(name) for name in ["README.md", *(str(f.relative_to(ROOT)) for f in (ROOT / "docs").rglob("*.md"))]}
ELSEWHERE = {
    "README.md": "tests/test_readme.py",
    "docs/add_an_env_id.md": "tests/tasks/test_docs.py",
    "docs/bridges.md": "tests/bridges/in_trl.py",
    "docs/add_an_agent.md": "tests/agents/test_docs.py",
    **{name: "tests/tasks/test_pages.py" for name in PAGES if name.startswith("docs/envs/TextGen")},
}
"""Pages whose blocks are several programs, by the test that runs each of them."""
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
SLOW = (
    "docs/constraints.md",
    "docs/sampling.md",
    "docs/watch.md",
    "docs/agents/distribution_matching.md",
    "docs/wrappers.md",
    "docs/quickstart.md",
    "docs/tutorials/right_answers.md",
)
PROGRAMS = sorted(name for name in PAGES if name not in ELSEWHERE and blocks(PAGES[name]))
EXPECTED = {
    "docs/exact.md": "total variation 0.0",
    "docs/extend.md": "total variation to the optimum: 0.0",
    "docs/wrappers.md": "same policy True, value 2.916",
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in PROGRAMS])
def test_a_page_is_a_program(name, tmp_path, monkeypatch, capsys):
    """Its blocks run one after the other; where it changes the source, in a changed copy."""
    code = "\n".join(blocks(PAGES[name]))
    if made := changes(PAGES[name]):
        copy = changed_copy(tmp_path, made)
        (copy / "page.py").write_text(code, encoding="utf-8")
        output = run_python(["page.py"], copy, copy)
    else:
        monkeypatch.chdir(tmp_path)
        torch.manual_seed(0)
        exec(compile(code, name, "exec"), {})
        output = capsys.readouterr().out
    assert EXPECTED.get(name, "") in output


@pytest.mark.parametrize("name", ELSEWHERE)
def test_every_block_of_the_other_pages_is_read_by_the_test_that_runs_it(name):
    stem = name.removeprefix("docs/").removesuffix(".md")
    source = (ROOT / ELSEWHERE[name]).read_text(encoding="utf-8")
    assert name in source or f'"{stem}"' in source or "for env_id in TASKS" in source


def test_every_addition_touches_as_many_files_as_the_table_says():
    text = PAGES["docs/extend.md"]
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    table = re.findall(r"^\| \[(.*?)\]\(\S+\) \| (\d)( folder)? \|", text, re.M)
    assert {name.lower() for name in sections} == {name.lower() for name, _, _ in table} and len(table) == 7
    for name, number, folder in table:
        files = {change.file for change in changes(sections[name[0].upper() + name[1:]])}
        assert len(files) == (0 if folder else int(number)), name


def links_of(name):
    """The links of a page to files of the repository: (path relative to the root, anchor or "")."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", PAGES[name]))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?://", target):
            path, _, anchor = target.partition("#")
            yield str((ROOT / name).parent.joinpath(path).resolve().relative_to(ROOT)) if path else name, anchor


def anchors_of(name):
    """What GitHub makes of a page's headings: lower case, without punctuation, hyphens for spaces."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", PAGES[name]), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_links_and_anchors_lead_somewhere(name):
    for path, anchor in links_of(name):
        assert (ROOT / path).exists(), f"{name} links to {path}"
        assert not anchor or anchor in anchors_of(path), f"{name} links to {path}#{anchor}"


def test_every_page_can_be_reached_from_the_index():
    found, new = set(), {"docs/README.md"}
    while new:
        found |= new
        new = {path for name in new for path, _ in links_of(name) if path in PAGES} - found
    assert set(PAGES) - found == set()
    assert "docs/README.md" in {path for path, _ in links_of("README.md")}


@pytest.mark.parametrize("name", PAGES)
def test_files_that_a_page_names_exist(name):
    shown = {change.file for change in changes(PAGES[name])} | {"agents/best_of_group.py"}
    for path in re.findall(r"(?<![\w/.])(?:textgym|agents|scripts|tests)/[\w/]+\.py\b", PAGES[name]):
        assert Path(ROOT / path).is_file() or path in shown, f"{name} names {path}"


def commands_of(name):
    """The words of every `python scripts/...` that a page shows, in a block of commands or in a line of text."""
    text = FENCE.sub("", PAGES[name])
    lines = [line.replace("\n", " ") for line in re.findall(r"`([^`]*\bpython scripts/[^`]+)`", text)]
    for language in ("bash", "console", "sh"):
        for block in blocks(PAGES[name], language):
            lines += block.replace("\\\n", " ").splitlines()
    for line in lines:
        words = shlex.split(re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line), comments=True)  # without the shell's variables
        if words[:2] == ["torchrun", "--nproc-per-node"]:
            words = ["python", *words[3:]]
        if words[:1] == ["python"] and words[1:2] != ["-m"] and not {"...", "--help"} & {*words}:
            yield words[1:]


def test_commands_stand_in_blocks_of_a_language():
    """Others would not be read by the test below."""
    for name, text in PAGES.items():
        assert not re.search(r"^```\n(?:python|torchrun) ", text, re.M), name


@pytest.mark.parametrize("name", [name for name in PAGES if any(commands_of(name))])
def test_scripts_take_the_options_that_a_page_gives_them(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for script, *words in commands_of(name):
        if "--config" in words:  # the run.yaml of a run
            file = Path(words[words.index("--config") + 1])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("agent: ppo\n", encoding="utf-8")
        if "best-of-group" not in words:  # an agent of the page
            module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
            parse(module.Args, None, words)
