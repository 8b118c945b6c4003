"""The package as a whole: what importing it costs, and where it can be used from."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(code):
    return json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def test_importing_textgym_imports_nothing_heavy():
    modules = set(run("import sys, json, textgym; print(json.dumps(sorted(sys.modules)))"))
    heavy = {"torch", "transformers", "stable_baselines3", "tokenizers", "vaderSentiment", "rich"}
    assert not heavy & modules
    assert "textgym.tasks.constraints" in modules  # words and JSON; the classes that they name come with gym.make
    assert not {"textgym.envs", "textgym.scorers", "textgym.prompts", "textgym.tokenizers"} & modules


def test_the_default_env_needs_no_torch():
    code = """
import sys, json, gymnasium as gym, textgym
for env in (gym.make("TextGen-v0", render_mode="ansi"), gym.make_vec("TextGen-v0", num_envs=2)):
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.unwrapped.render()
print(json.dumps(sorted(sys.modules)))
"""
    assert not {"torch", "transformers", "stable_baselines3"} & set(run(code))


def test_scripts_and_agents_are_importable_from_anywhere(tmp_path):
    subprocess.run([sys.executable, "-c", "import agents, scripts.train"], check=True, cwd=tmp_path)
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), "reinforce", "--help"], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0


def test_a_missing_package_names_the_extra():
    code = """
import sys, json
sys.modules["stable_baselines3"] = None
try:
    import textgym.sb3
except ImportError as error:
    print(json.dumps(str(error)))
"""
    assert 'pip install "textgym[agents]"' in run(code)
