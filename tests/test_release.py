"""What a release is made of: the wheel and the source distribution, in a bare environment, and the citation."""

import importlib.metadata
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.docs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def core_distributions():
    """Names of the distributions that `pip install textgym` brings, those that they need included."""
    found, new = set(), [Requirement(text) for text in PROJECT["dependencies"]]
    while new:
        wanted = new.pop()
        if wanted.name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found.add(wanted.name)
        new += [Requirement(text) for text in importlib.metadata.requires(wanted.name) or []]
    return found


def requirements(*names):
    """The requirements of the core and of extras, those of the extras that these name included."""
    found, extras = list(map(Requirement, PROJECT["dependencies"])), PROJECT["optional-dependencies"]
    for requirement in map(Requirement, [text for name in names for text in extras[name]]):
        found += requirements(*requirement.extras) if requirement.name == "textgym" else [requirement]
    return found


def pins(name):
    """The versions that a file of constraints names, by the normalised name of the distribution."""
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines if line}


def link_distributions(names, folder):
    """A folder that holds these distributions of this environment, and no others."""
    for name in names:
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."} - {"__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the source distribution, built from a copy that holds nothing but the sources."""
    pytest.importorskip("build.__main__", reason="the package build is missing")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT / "textgym", source / "textgym", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("agents/__init__.py", "scripts/__init__.py", "tests/test_mdp.py", "tests/helpers/docs.py"):
        (source / file).parent.mkdir(parents=True, exist_ok=True)  # which must stay out
        shutil.copy(ROOT / file, source / file)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def wheel_names(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return wheel, set(archive.namelist())


def test_the_wheel_holds_the_package_and_its_assets_and_nothing_else(built):
    wheel, names = wheel_names(built)
    version = PROJECT["version"]
    assert wheel.name == f"textgym-{version}-py3-none-any.whl"
    assert {name.split("/")[0] for name in names} == {"textgym", f"textgym-{version}.dist-info"}
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "textgym").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("textgym/")} == sources
    assert f"textgym-{version}.dist-info/licenses/LICENSE" in names


def test_the_source_distribution_can_be_built_again(built):
    """It holds no tests: most of them need the agents and scripts of the checkout, and setuptools would take some."""
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "textgym/language_models/tiny/model.safetensors"} <= names
    assert not [name for name in names if name.startswith(("agents", "scripts", "tests"))]


def test_the_wheel_works_with_the_core_dependencies_alone(built, tmp_path):
    wheel, _ = wheel_names(built)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    names = core_distributions()
    assert "gymnasium" in names and not {"torch", "transformers", "stable-baselines3"} & names
    link_distributions(names, tmp_path)
    code = """
import importlib.util, gymnasium as gym, textgym
assert importlib.util.find_spec("torch") is None
for env_id in ("TextGenChars-v0", "TextGen-v0"):
    env = gym.make(env_id)
    env.reset(seed=0)
    env.action_space.seed(0)
    ended = 0
    for _ in range(100):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        if terminated or truncated:
            ended += 1
            env.reset()
    print(textgym.__file__, ended)
"""
    # without `site` Python has no packages but those of the folder
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all(Path(line.split()[0]).is_relative_to(tmp_path) for line in lines)
    assert all(int(line.split()[1]) > 0 for line in lines)


def test_the_citation_has_what_its_format_asks_for_and_the_version_of_the_package():
    """The required keys of version 1.2.0 of the Citation File Format."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["authors"] and all({"name"} <= set(one) or "family-names" in one for one in citation["authors"])
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert citation["keywords"] == PROJECT["keywords"]


def test_every_package_of_the_extras_has_a_pin():
    """Or a fresh clone would be tested with other versions than those that were tried."""
    wanted = {canonicalize_name(requirement.name) for requirement in requirements("dev", "agents")}
    assert wanted <= set(pins("constraints.txt"))


def test_the_lowest_versions_are_those_that_the_package_allows():
    floors = {}
    for requirement in requirements("dev"):
        (floor,) = requirement.specifier
        assert floor.operator == ">=", requirement
        assert floors.setdefault(canonicalize_name(requirement.name), floor.version) == floor.version, requirement
    assert pins("constraints-lowest.txt") == floors
