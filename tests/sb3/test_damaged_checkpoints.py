"""Damaged, edited and foreign checkpoints are refused by the checkpoint's and the file's name."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from agents import PPO, REINFORCE
from scripts.command_line import read_saved
from tests.helpers.checkpoints import agent, vector_env
from textgym.sb3 import TokenPolicy
from textgym.sb3.checkpoints import AgentState
from textgym.training.state import FORMAT, MANIFEST, TENSORS, CheckpointError, checksums, write_json

STATE = AgentState.file
FILES = [
    STATE,
    MANIFEST,
    TENSORS,
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "reference/model.safetensors",
    "reference/config.json",
    "reference/generation_config.json",
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A checkpoint of PPO with a reference of its own."""
    made = agent(PPO, batch_size=None, n_epochs=1)
    made.learn(50)
    path = tmp_path_factory.mktemp("written") / "good"
    made.save(path)
    return path


@pytest.fixture
def copied(written, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(written, tmp_path / "copied")


def refused(path, file, words=""):
    """Every reader refuses it by name."""
    for read in (lambda: PPO.load(path, vector_env(), device="cpu"), lambda: read_saved(str(path))):
        with pytest.raises(CheckpointError) as caught:
            read()
        message = str(caught.value)
        assert f"checkpoint {str(path)!r}, {file}: " in message and words in message, message
    return message


def seal(path):
    """Make the manifest fit again, as an editor may who knows of it."""
    write_json(path / MANIFEST, {"format": FORMAT, "files": checksums(path)})


def test_there_are_no_other_files(written):
    assert sorted(FILES) == sorted(p.relative_to(written).as_posix() for p in written.rglob("*") if p.is_file())
    PPO.load(written, vector_env(), device="cpu")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["deleted", "emptied", "cut", "longer", "a bit", "renamed"])
def test_a_damaged_file(copied, file, damage):
    path = copied / file
    content = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    elif damage == "renamed":
        path.rename(path.with_name("other"))
    else:
        middle = len(content) // 2
        bit = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"emptied": b"", "cut": content[:middle], "longer": content * 2, "a bit": bit}[damage])
    if file == MANIFEST and damage == "a bit":  # it may have hit the name or the sum of another file
        with pytest.raises(CheckpointError, match=r"checkpoint '.*copied', "):
            PPO.load(copied, vector_env(), device="cpu")
        return
    refused(copied, file)


def test_no_checkpoint(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="is no TextGym checkpoint: it has no manifest.json"):
            PPO.load(path)


@pytest.mark.parametrize(("version", "words"), [(FORMAT + 1, f"reads {FORMAT}"), (0, f"reads {FORMAT}"), ("1", "'1'")])
def test_another_format(copied, version, words):
    write_json(copied / MANIFEST, {"format": version, "files": checksums(copied)})
    refused(copied, MANIFEST, words)


def test_a_manifest_that_leaves_files_out(copied):
    write_json(copied / MANIFEST, {"format": FORMAT, "files": {}})
    refused(copied, MANIFEST, "it lists no algorithm.json")


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(AgentState)])
def test_a_field_that_is_missing_or_has_another_type(copied, field):
    data = json.loads((copied / STATE).read_text())
    write_json(copied / STATE, {name: value for name, value in data.items() if name != field})
    seal(copied)
    refused(copied, STATE, f"the field {field!r} is missing")
    write_json(copied / STATE, data | {field: 1.5})
    seal(copied)
    refused(copied, STATE, f"{field} is 1.5")


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


STATE_OF_NUMPY = ["MT19937", "00" * 4 * 624, 3, 0, 0.0]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda s: {"new_thing": 1}, "unknown field 'new_thing'"),
        (lambda s: {"num_timestep": 1}, "unknown field 'num_timestep'; did you mean 'num_timesteps'"),
        (lambda s: {"num_timesteps": -1}, "num_timesteps is -1; it cannot be negative"),
        (lambda s: {"n_updates": -3}, "n_updates is -3; it cannot be negative"),
        (lambda s: {"iterations": True}, "iterations is True"),
        (lambda s: {"last_episodes": [[1.0]]}, "last_episodes must be pairs"),
        (lambda s: {"log": {"train/loss": 1.0}}, "log must give"),
        (lambda s: {"algorithm": "GRPO"}, "holds a GRPO, not a PPO"),
        (lambda s: {"optimizer": "SGD"}, "the checkpoint's optimizer is SGD"),
        (lambda s: {"arguments": without(s["arguments"], "gamma")}, "the argument 'gamma' is missing"),
        (lambda s: {"arguments": without(s["arguments"], "policy_kwargs")}, "'policy_kwargs' must be an object"),
        (lambda s: {"arguments": s["arguments"] | {"policy_kwargs": []}}, "'policy_kwargs' must be an object"),
        (lambda s: {"arguments": s["arguments"] | {"beta": 1}}, "the argument 'beta' is not one of PPO"),
        (lambda s: {"arguments": s["arguments"] | {"batch_size": -1}}, "batch_size is -1"),
        (lambda s: {"mdp": without(s["mdp"], "min_new_tokens")}, "the MDP's 'min_new_tokens' is missing"),
        (lambda s: {"mdp": s["mdp"] | {"max_new_tokens": 7}}, "the env's MDP is not the checkpoint's"),
        (lambda s: {"random_state": without(s["random_state"], "numpy")}, "the random state is of"),
        (lambda s: {"random_state": s["random_state"] | {"torch": "00" * 100}}, "random state of torch"),
        (lambda s: {"random_state": s["random_state"] | {"torch": "xy"}}, "random state of torch"),
        (lambda s: {"random_state": s["random_state"] | {"python": [3, "00" * 8, None]}}, "random state of python"),
        (lambda s: {"random_state": s["random_state"] | {"numpy": STATE_OF_NUMPY[:2]}}, "random state of numpy"),
        (lambda s: {"random_state": s["random_state"] | {"generators": [{"bit_generator": "seed"}]}}, "of generators"),
        (lambda s: {"random_state": s["random_state"] | {"generators": [{}]}}, "random state of generators"),
        (lambda s: {"param_groups": []}, "parameter groups"),
        (lambda s: {"tensors": s["tensors"][1:]}, "does not belong there"),
    ],
)
def test_an_edited_state(copied, edit, words):
    data = json.loads((copied / STATE).read_text())
    write_json(copied / STATE, data | edit(data))
    seal(copied)
    with pytest.raises(CheckpointError) as caught:
        PPO.load(copied, vector_env(), device="cpu")
    assert f"checkpoint {str(copied)!r}, " in str(caught.value) and words in str(caught.value)


def edited(path, edit):
    tensors = edit(load_file(path))
    save_file(tensors, path, metadata={"format": "pt"})


def renamed(tensors, old, new):
    return {new if name == old else name: tensor for name, tensor in tensors.items()}


WEIGHT, VALUE, MOMENT = "model.layers.0.mlp.up_proj.weight", "value_net.weight", "optimizer.3.exp_avg"


@pytest.mark.parametrize(
    ("file", "edit", "words"),
    [
        ("model.safetensors", lambda t: without(t, WEIGHT), f"lacks 1 of its weights, such as '{WEIGHT}'"),
        ("model.safetensors", lambda t: renamed(t, WEIGHT, WEIGHT + "x"), "lacks 1 of its weights"),
        ("model.safetensors", lambda t: t | {WEIGHT: t[WEIGHT][:5].clone()}, "mismatch"),
        ("model.safetensors", lambda t: t | {WEIGHT: t[WEIGHT] * torch.nan}, f"'{WEIGHT}' has values that are not fin"),
        ("reference/model.safetensors", lambda t: without(t, WEIGHT), "lacks 1 of its weights"),
        (TENSORS, lambda t: without(t, VALUE), f"the tensor '{VALUE}' is missing"),
        (TENSORS, lambda t: renamed(t, VALUE, "value_net.weights"), f"the tensor '{VALUE}' is missing"),
        (TENSORS, lambda t: t | {VALUE: torch.zeros(1, 7)}, "size mismatch for value_net.weight"),
        (TENSORS, lambda t: {n: x for n, x in t.items() if "optimizer" not in n}, "the tensor 'optimizer.0.exp_avg'"),
        (TENSORS, lambda t: t | {"new": torch.zeros(1)}, "the tensor 'new' does not belong there"),
        (TENSORS, lambda t: t | {MOMENT: torch.zeros(3)}, f"the tensor '{MOMENT}' does not fit"),
    ],
)
def test_edited_tensors(copied, file, edit, words):
    edited(copied / file, edit)
    seal(copied)
    with pytest.raises(CheckpointError) as caught:
        PPO.load(copied, vector_env(), device="cpu")
    assert f"checkpoint {str(copied)!r}, {file}: " in str(caught.value) and words in str(caught.value)


def test_the_training_of_another_agent(copied, tmp_path):
    other = agent(REINFORCE, seed=1)
    other.learn(50)
    other.save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / TENSORS, copied / TENSORS)
    refused(copied, TENSORS, "damaged or was edited")
    seal(copied)
    with pytest.raises(CheckpointError, match=f"{TENSORS}: the tensor .* is missing"):
        PPO.load(copied, vector_env(), device="cpu")


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(FileExistsError, match="is there and is no checkpoint"):
            agent().save(path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("damage", ["deleted", "a bit"])
def test_a_damaged_policy(tmp_path, damage):
    made = agent()
    made.policy.save(tmp_path / "p")
    for file in [p for p in (tmp_path / "p").iterdir() if p.name != MANIFEST]:
        content = file.read_bytes()
        file.unlink() if damage == "deleted" else file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(CheckpointError, match=rf"checkpoint '.*p', {file.name}: "):
            TokenPolicy.load(tmp_path / "p")
        file.write_bytes(content)
    assert isinstance(TokenPolicy.load(tmp_path / "p"), TokenPolicy)
