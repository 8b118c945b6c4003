"""The site: its contents name every page, its links lead to files, and the names in its tables are there."""

import base64
import dataclasses
import importlib
import inspect
import re

import gymnasium as gym
import pytest
import sb3_contrib
import yaml

import agents
import textgym.sb3
from scripts.agent_arguments import COMMANDS
from scripts.make_site import lay_out, linked
from tests.helpers.docs import ROOT, logged_names, page
from textgym.arguments import arguments_of
from textgym.sb3.policy import POLICY_ARGUMENTS
from textgym.tasks import TASKS


class Loader(yaml.SafeLoader):
    """Without the objects of other packages that a configuration may name."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
CONFIG = yaml.load((ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8"), Loader)


def entries(nav):
    """The pages of a table of contents, in order."""
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from [value] if isinstance(value, str) else entries(value)


def test_the_contents_name_every_page_once():
    named = list(entries(CONFIG["nav"]))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    notebooks = {f"notebooks/{path.stem}.md" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    assert len(named) == len(set(named))
    assert set(named) == pages | notebooks | {"project/README.md"}


def test_every_link_of_the_laid_out_pages_leads_to_a_file(tmp_path):
    lay_out(tmp_path)
    pages = sorted((tmp_path / "pages").rglob("*.md"))
    assert (tmp_path / "mkdocs.yml").is_file() and len(pages) > 60
    for path in pages:
        for target in linked(path, path.read_text(encoding="utf-8")):
            assert target.is_file() and target.is_relative_to(tmp_path), f"{path} links to {target}"


def test_names_of_files_become_titles_and_sources_lie_beside_the_pages(tmp_path):
    lay_out(tmp_path)
    extend = (tmp_path / "pages" / "extend.md").read_text(encoding="utf-8")
    assert '```python title="textgym/scorers/questions.py"' in extend
    assert (tmp_path / "pages" / "project" / "scripts" / "recipes" / "cleanrl_ppo.py").is_file()
    notebook = (tmp_path / "pages" / "notebooks" / "own_reward.md").read_text(encoding="utf-8")
    assert notebook.startswith("# Your own reward") and "```python\nimport gymnasium as gym" in notebook
    assert "```text\n[1.42, -0.16]\n```" in notebook
    (picture,) = re.findall(r'<img alt="[\w ]+" src="data:image/png;base64,([^"]+)">', notebook)
    assert base64.b64decode(picture, validate=True).startswith(b"\x89PNG")


def known_names():
    """Everything that a table of names may name: agents, their arguments, those of envs, options, ids and logs."""
    found = {*agents.__all__, *textgym.sb3.__all__, *sb3_contrib.__all__, *TASKS, "policy_kwargs", "split"}
    for agent in (getattr(agents, name) for name in agents.__all__):
        found |= set(inspect.signature(agent).parameters)
        found |= set(arguments_of(agent)) if issubclass(agent, textgym.sb3.EpisodicAlgorithm) else set()
    found |= {*POLICY_ARGUMENTS, *re.findall(r"^(?:\| |- )`(\w+)`(?: \||:)", page("envs/README"), re.M)}
    for command in COMMANDS.values():
        for part in (command, *(field.default_factory for field in dataclasses.fields(command))):
            if dataclasses.is_dataclass(part):
                found |= {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(part)}
    return found | {"--config"} | logged_names(page("agents/README"))


def exists(name):
    """Whether a dotted name can be imported."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[n:]:
            thing = getattr(thing, attribute, None)
        return thing is not None
    return False


@pytest.mark.parametrize("name", ["trl", "sb3", "rl4lms"])
def test_the_names_that_tables_map_to_are_there(name):
    known, rows = known_names(), re.findall(r"^\| .*", page(f"coming_from/{name}"), re.M)
    ours = [one for row in rows for one in re.findall(r"`([^`]+)`", re.split(r"(?<!\\)\|", row)[2])]
    assert len(ours) > 15
    assert [one for one in ours if one not in known and not ("." in one and exists(one))] == []


def test_a_name_that_is_not_there_is_seen():
    assert "klcoef" not in known_names() and not exists("textgym.evaluation.evaluates") and exists("agents.GRPO.learn")


def test_ids_of_the_pages_are_registered():
    """Whatever looks like an id of ours is one, but for those that a page registers."""
    own = {"TextGenQuestion-v0"} | set(re.findall(r'id="(TextGen\w+-v0)"', page("add_an_env_id")))
    for path in (ROOT / "docs").rglob("*.md"):
        for env_id in set(re.findall(r"\bTextGen\w*-v\d\b", path.read_text(encoding="utf-8"))) - own:
            assert env_id in gym.registry, f"{path} names {env_id}"
