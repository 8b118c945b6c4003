"""Adapters of every setting that is accepted come back exactly, by us, transformers and peft; the rest is refused."""

import dataclasses
import json
import os
import shutil

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.conftest import small_gpt2, small_llama
from textgym.language_models import load_model, load_tokenizer
from textgym.language_models.adapters import add_adapters, check_adapters, kinds, peft_config, remember_base, save_model
from textgym.language_models.loader import load_merged
from textgym.language_models.token_model import TokenModel
from textgym.mdp import TextMDP

IDS = torch.tensor([[0, 3, 4, 1, 2]])
BLOCKS = {"target_modules_bd_a": ["o_proj"], "target_modules_bd_b": ["q_proj"], "nblocks": 2, "match_strict": False}
VARIANTS = [
    {"r": 4},
    {"r": 2, "lora_alpha": 5, "use_rslora": True, "init_lora_weights": "gaussian"},
    {"use_dora": True},
    {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}, "init_lora_weights": "orthogonal"},
    {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]},
    {"exclude_modules": ["q_proj"], "lora_bias": True},
    {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
    {"target_modules": ["lm_head", "q_proj"]},
    {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    {"trainable_token_indices": [1, 2]},
    {"target_parameters": ["self_attn.q_proj.weight"], "target_modules": ["v_proj"]},
    {"use_bdlora": BLOCKS},
    {"peft_type": "IA3"},
    {"peft_type": "IA3", "target_modules": ["q_proj", "gate_proj"], "feedforward_modules": []},
    {"peft_type": "ADALORA", "total_step": 9},
    {"peft_type": "ADALORA", "total_step": 9, "init_r": 3, "target_r": 1, "target_modules": ["q_proj", "down_proj"]},
]


def add(model, given):
    """Add the adapters that `peft` describes, or `lora` where no type is named."""
    add_adapters(model, peft_config(given) if "peft_type" in given else peft_config(None, given))
    return model


@torch.no_grad()
def logits(model):
    return model.eval()(IDS).logits


def tied_llama():
    return small_llama(tie_word_embeddings=True)


@torch.no_grad()
def trained(make=small_llama, lora=None, seed=1):
    """A model with adapters that are no longer the identity."""
    model = add(make(), {"r": 4} if lora is None else lora)
    torch.manual_seed(seed)
    for p in model.parameters():
        if p.requires_grad:
            p.add_(0.3 * torch.randn_like(p))
    return model.eval()


def folder(path, **kwargs):
    """The path of a folder with a trained model."""
    path.mkdir()
    save_model(trained(**kwargs), path)
    return path


def rewrite(path, change):
    """Change the tensors of a folder's adapters."""
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


@pytest.mark.parametrize("make", [small_llama, tied_llama])
@pytest.mark.parametrize("lora", VARIANTS, ids=str)
def test_what_is_saved_is_the_trained_model_for_every_reader(make, lora, tmp_path):
    model = trained(make, lora)
    expected, plain = logits(model), logits(make())
    assert (expected - plain).abs().max() > 0.1
    save_model(model, tmp_path)
    torch.testing.assert_close(logits(load_model(tmp_path)), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), expected, atol=1e-6, rtol=0)
    base = load_model(tmp_path / "base")
    torch.testing.assert_close(logits(base), plain, atol=0, rtol=0)
    by_peft = peft.PeftModel.from_pretrained(base, str(tmp_path))
    torch.testing.assert_close(logits(by_peft), expected, atol=1e-6, rtol=0)
    loaded = load_model(tmp_path)
    loaded.disable_adapters()  # the reference
    torch.testing.assert_close(logits(loaded), plain, atol=0, rtol=0)


@pytest.mark.parametrize("lora", VARIANTS, ids=str)
def test_adapters_start_as_the_identity(lora):
    model = add(tied_llama(), lora)
    torch.testing.assert_close(logits(model), logits(tied_llama()), atol=1e-5, rtol=0)
    assert any(p.requires_grad for p in model.parameters())


def test_gpt2_too(tmp_path):
    model = trained(small_gpt2, {"r": 4, "use_dora": True, "fan_in_fan_out": True})
    save_model(model, tmp_path)
    for read in (load_model, AutoModelForCausalLM.from_pretrained):
        assert torch.equal(logits(read(tmp_path)), logits(model))


def test_a_folder_may_be_moved_and_read_from_anywhere(tmp_path, monkeypatch):
    path = folder(tmp_path / "here")
    expected = logits(load_model(path))
    moved = shutil.copytree(path, tmp_path / "there")
    shutil.rmtree(path)
    monkeypatch.chdir(tmp_path)
    for source in (moved, "there", "./there"):
        assert torch.equal(logits(load_model(source)), expected)
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(source)), expected)


def test_what_is_on_the_hub_is_not_written_again(tmp_path, monkeypatch):
    save_model(trained(), tmp_path, hub_id="org/name")
    assert sorted(os.listdir(tmp_path)) == ["adapter_config.json", "adapter_model.safetensors"]
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/name"
    with pytest.raises(ValueError, match="unknown model 'org/name'"):
        load_model(tmp_path)


def test_the_model_beneath_is_written_once(tmp_path):
    """Later folders have links to its files, unless these were changed; and each stands on its own."""
    model, paths = trained(), [tmp_path / name for name in "abcd"]
    for path in paths[:3]:
        path.mkdir()
        save_model(model, path)
        remember_base(model, path)
    weights = [path / "base" / "model.safetensors" for path in paths]
    assert len({file.stat().st_ino for file in weights[:3]}) == 1
    expected = logits(model)
    for path in paths[:2]:
        shutil.rmtree(path)
    assert torch.equal(logits(load_model(paths[2])), expected)
    weights[2].write_bytes(b"damaged")
    paths[3].mkdir()
    save_model(model, paths[3])
    assert torch.equal(logits(load_model(paths[3])), expected)


def test_where_there_are_no_links_the_model_beneath_is_written_again(tmp_path, monkeypatch):
    def no_link(*_):
        raise OSError("no links")

    model = trained()
    for path in (tmp_path / "a", tmp_path / "b"):
        path.mkdir()
        save_model(model, path)
        remember_base(model, path)
        monkeypatch.setattr(os, "link", no_link)
    shutil.rmtree(tmp_path / "a")
    assert torch.equal(logits(load_model(tmp_path / "b")), logits(model))


LAST = "model.layers.1.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop(f"base_model.model.{LAST}"),
            "lacks the tensor 'model.layers.1.self_attn.q_proj.lora_A.default",
        ),
        (lambda t: t.update(lora_C=torch.zeros(1)), "holds the tensor 'lora_C', which the model lacks"),
        (
            lambda t: t.update({f"base_model.model.{LAST}": torch.zeros(3, 32)}),
            "does not fit the model.*lora_A.default",
        ),
        (lambda t: [t.pop(n) for n in list(t)[:3]], "and 2 more"),
    ],
)
def test_a_tensor_that_is_missing_or_foreign_is_named(change, message, tmp_path):
    path = folder(tmp_path / "m")
    rewrite(path, change)
    with pytest.raises(ValueError, match=rf"m/adapter_model.safetensors'.*{message}"):
        load_model(path)


def test_a_magnitude_of_dora_that_is_missing_is_named(tmp_path):
    path = folder(tmp_path / "m", lora={"use_dora": True})
    rewrite(path, lambda t: t.pop("base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector.weight"))
    with pytest.raises(ValueError, match="lacks the tensor 'model.layers.0.mlp.up_proj.lora_magnitude_vector"):
        load_model(path)


def test_trained_rows_of_an_embedding_that_are_missing_are_named(tmp_path):
    path = folder(tmp_path / "m", lora={"trainable_token_indices": [1]})
    rewrite(path, lambda t: [t.pop(n) for n in list(t) if "token_adapter" in n])
    with pytest.raises(ValueError, match="lacks the tensor .*trainable_tokens_delta"):
        load_model(path)


def test_a_file_that_is_cut_or_missing_is_named(tmp_path):
    path = folder(tmp_path / "m")
    file = path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="m/adapter_model.safetensors' is damaged"):
        load_model(path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="m' holds no adapter_model.safetensors"):
        load_model(path)


def test_the_adapters_of_another_model_are_refused(tmp_path):
    path = folder(tmp_path / "m")
    shutil.rmtree(path / "base")
    small_llama(num_hidden_layers=1).save_pretrained(path / "base")
    with pytest.raises(ValueError, match="adapter_model.safetensors' holds the tensor 'model.layers.1"):
        load_model(path)
    small_gpt2().save_pretrained(path / "base")
    with pytest.raises(ValueError, match="the adapters of .*m' do not fit"):
        load_model(path)


def test_a_folder_that_does_not_name_its_base(tmp_path):
    peft.get_peft_model(small_llama(), peft.LoraConfig(r=2)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="do not say which model they belong to.*PeftModel.from_pretrained"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=4, target_modules="all-linear", use_dora=True, modules_to_save=["lm_head"], bias="all"),
        peft.AdaLoraConfig(total_step=10, target_modules=["q_proj", "v_proj"]),
        peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
        peft.LoHaConfig(r=2, target_modules=["q_proj"]),
        peft.LoKrConfig(r=2, target_modules=["q_proj"]),
        peft.LNTuningConfig(target_modules=["input_layernorm"]),
        peft.OFTConfig(r=0, oft_block_size=4, target_modules=["q_proj"]),
        peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
        peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
        peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM", prefix_projection=True),
        peft.PromptEncoderConfig(num_virtual_tokens=2, task_type="CAUSAL_LM", encoder_hidden_size=8),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_every_kind_that_peft_wrote_is_read_as_peft_reads_it(config, tmp_path):
    base = small_llama()
    base.save_pretrained(tmp_path / "model")
    base.name_or_path = str(tmp_path / "model")
    made = peft.get_peft_model(base, config)
    torch.manual_seed(0)
    with torch.no_grad():
        for p in made.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn_like(p))
    made.save_pretrained(tmp_path / "adapters")
    assert (logits(made)[:, -5:] - logits(small_llama())).abs().max() > 1e-3
    expected = logits(made)[:, -5:]  # of prompt tuning, peft has logits at the virtual tokens, too
    torch.testing.assert_close(logits(load_model(tmp_path / "adapters")), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits(load_model(made)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "config",
    [
        peft.PromptTuningConfig(num_virtual_tokens=2, task_type="FEATURE_EXTRACTION"),
        peft.LoraConfig(r=2, task_type="CAUSAL_LM", alora_invocation_tokens=[1]),
        peft.VeraConfig(r=2, target_modules=["q_proj", "o_proj"]),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_adapters_that_are_more_than_the_models_modules_are_refused_by_name(config, tmp_path):
    base = small_llama()
    base.save_pretrained(tmp_path / "model")
    base.name_or_path = str(tmp_path / "model")
    made = peft.get_peft_model(base, config)
    made.save_pretrained(tmp_path / "adapters")
    for source in (tmp_path / "adapters", made):
        with pytest.raises(ValueError, match=f"holds adapters of the kind {config.peft_type.value}.*accepted: LORA"):
            load_model(source)


def test_saved_adapters_import_no_module(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("import pathlib; pathlib.Path('imported').touch()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    small_llama().save_pretrained("model")
    base = load_model("model")
    peft.get_peft_model(base, peft.LoraConfig(r=2)).save_pretrained("adapters")
    file = tmp_path / "adapters" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"megatron_config": {"a": 1}, "megatron_core": "theirs"}))
    with pytest.raises(ValueError, match="'adapters' holds adapters of the kind LORA with megatron_config"):
        load_model("adapters")
    assert not (tmp_path / "imported").exists()


def test_adapters_without_a_tokenizer_have_that_of_their_base(tmp_path):
    tiny = load_model("tiny")
    peft.get_peft_model(tiny, peft.LoraConfig(r=2)).save_pretrained(tmp_path / "adapters")
    assert load_tokenizer(tmp_path / "adapters").get_vocab() == load_tokenizer("tiny").get_vocab()
    small_llama().save_pretrained(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="model' holds a model, but no tokenizer"):
        load_tokenizer(tmp_path / "model")


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_peft_model_is_the_model_within(dtype):
    made = peft.get_peft_model(small_llama(), peft.LoraConfig(r=2))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn_like(p) * p.requires_grad)
    expected = logits(made)
    loaded = load_model(made, dtype=dtype)
    assert type(loaded) is type(small_llama())
    torch.testing.assert_close(logits(loaded).float(), expected, atol=0 if dtype is None else 0.2, rtol=0)
    check_adapters(loaded)


def test_new_adapters_on_top_of_loaded_ones_are_refused(tmp_path):
    with pytest.raises(ValueError, match="already has adapters: leave peft and lora out.*scripts/export.py"):
        add(load_model(folder(tmp_path / "m")), {"r": 2})


def test_loaded_adapters_that_cannot_be_trained_are_refused(tmp_path):
    check_adapters(load_model(folder(tmp_path / "m")))
    check_adapters(small_llama())
    free = peft.LoraConfig(r=2, lora_dropout=0.1, bias="all", modules_to_save=["lm_head"])
    check_adapters(load_model(peft.get_peft_model(small_llama(), free)))
    check_adapters(load_model(peft.get_peft_model(small_llama(), peft.IA3Config())))
    for config, message in (
        (peft.AdaLoraConfig(total_step=9), "ADALORA: the importance of their ranks"),
        (peft.LNTuningConfig(target_modules=["input_layernorm"]), "LN_TUNING cannot be trained"),
        (peft.LoraConfig(r=2, init_lora_weights="pissa"), "cannot be trained further: init_lora_weights='pissa'"),
    ):
        with pytest.raises(ValueError, match=f"{message}.*scripts/export.py"):
            check_adapters(load_model(peft.get_peft_model(small_llama(), config)))
    several = peft.get_peft_model(small_llama(), peft.LoraConfig(r=2))
    several.add_adapter("second", peft.LoraConfig(r=2))
    with pytest.raises(ValueError, match=r"2 adapters, \['default', 'second'\]"):
        check_adapters(load_model(several))


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 4}, "^lora: .*rank.*; accepted are the arguments of peft.LoraConfig"),
        (4, "^lora: 4 is not accepted; accepted are a peft.PeftConfig, or a dict"),
        ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 2}, "^lora: it is of the kind PREFIX_TUNING; pass"),
        ({"peft_type": "IA3"}, "^lora: it is of the kind IA3; pass it as peft"),
        (peft.IA3Config(), "^lora: it is of the kind IA3; pass it as peft"),
    ],
    ids=str,
)
def test_senseless_lora_is_refused(lora, message):
    with pytest.raises(ValueError, match=message):
        peft_config(None, lora)


ADALORA = {"peft_type": "ADALORA", "total_step": 9}
PROMPT, PREFIX = ({"peft_type": f"{kind}_TUNING", "num_virtual_tokens": 3} for kind in ("PROMPT", "PREFIX"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("IA3", "^peft: 'IA3' is not accepted; .*with the peft_type: LORA, ADALORA, IA3"),
        ({"r": 4}, "^peft: .* is not accepted; .*with the peft_type: LORA, ADALORA, IA3"),
        ({"peft_type": "VERA"}, "^peft: adapters of the kind VERA cannot be trained: .*; accepted: LORA, ADALORA, IA3"),
        (peft.VeraConfig(), "^peft: adapters of the kind VERA cannot be trained: .*; accepted: LORA, ADALORA, IA3"),
        ({"peft_type": "IA3", "r": 4}, "^peft: .*'r'; accepted are the arguments of peft.IA3Config"),
        (
            {"peft_type": "IA3", "init_ia3_weights": False},
            "^peft: init_ia3_weights=False: the adapters would not start",
        ),
        (
            {"peft_type": "IA3", "modules_to_save": ["lm_head"]},
            "^peft: modules_to_save=.*: it changes the model beneath",
        ),
        ({"peft_type": "ADALORA"}, "^peft: AdaLoRA does not work when `total_step` is None"),
        (ADALORA | {"tfinal": 9}, "^peft: The supplied schedule values don't allow for a budgeting phase"),
        (ADALORA | {"r": 4}, "^peft: r=4: AdaLoRA ignores it: init_r is its rank"),
        (ADALORA | {"use_rslora": True}, "^peft: use_rslora=True: AdaLoRA ignores it"),
        (ADALORA | {"rank_pattern": {"a": [True]}}, "^peft: rank_pattern=.*: its training finds the ranks"),
        (ADALORA | {"lora_dropout": 0.1}, "^peft: lora_dropout=0.1: log-probabilities in sampling"),
        (ADALORA | {"target_r": 12}, "^peft: target_r=12: the mean rank at the end must be below init_r=12"),
        (ADALORA | {"init_r": 0}, "^peft: init_r is 0; it must be an integer of at least 1"),
        (ADALORA | {"deltaT": 0}, "^peft: deltaT is 0; it must be an integer of at least 1"),
        (ADALORA | {"tinit": -1}, "^peft: tinit is -1; it must be an integer of at least 0"),
        ({"peft_type": "P_TUNING", "num_virtual_tokens": 2}, "^peft: .*P_TUNING cannot be trained: peft's file holds"),
        ({"peft_type": "PROMPT_TUNING"}, "^peft: num_virtual_tokens is None; it must be an integer of at least 1"),
        (PROMPT | {"task_type": "SEQ_CLS"}, "^peft: task_type='SEQ_CLS': of any other task, peft's forward pass"),
        (
            PROMPT | {"prompt_tuning_init": "ZERO"},
            "^peft: prompt_tuning_init='ZERO': peft knows no such start; accepted",
        ),
        (
            PROMPT | {"prompt_tuning_init": "TEXT"},
            "^peft: When prompt_tuning_init='TEXT', tokenizer_name_or_path can't",
        ),
        (
            PREFIX | {"prefix_projection": True},
            "^peft: prefix_projection=True: peft's file holds what the encoder made",
        ),
        (ADALORA | {"beta1": 1.0}, "^peft: beta1 is 1.0; it must be in "),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Note that `r` is not used")
def test_senseless_adapters_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        peft_config(given)


def test_one_argument_at_a_time():
    assert peft_config(None) is None
    with pytest.raises(ValueError, match="both peft and lora are given"):
        peft_config({"peft_type": "LORA"}, {"r": 4})


@pytest.mark.parametrize("given", [{"r": 4, "target_modules": ["nothing"]}, {"r": 0}], ids=str)
def test_what_does_not_fit_the_model_is_refused(given):
    model = small_llama()
    with pytest.raises(ValueError, match="nothing|`r`"):
        add(model, given)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    "more",
    [
        {"lora_dropout": 0.1},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head"]},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": False},
        {"alora_invocation_tokens": [3]},
        {"kasa_config": {}},
        {"layer_replication": [[0, 2], [0, 2]]},
        {"arrow_config": {}},
        {"velora_config": {}},
        {"monteclora_config": {}},
        {"use_qalora": True},
        {"megatron_config": {"a": 1}},
        {"task_type": "SEQ_CLS"},
        {"inference_mode": True},
    ],
    ids=str,
)
def test_settings_that_change_more_than_the_adapters_are_refused(more):
    """Turned off, such adapters would not leave the untrained model, or nothing would train them as they are meant."""
    name = next(iter(more))
    for lora in ({"r": 4, **more}, peft.LoraConfig(r=4, **more)):
        with pytest.raises(ValueError, match=f"lora: {name}=.*{kinds.LORA.reasons[name][:20]}.*; accepted: "):
            peft_config(None, lora)


STARTS = {"loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core", "qalora_group_size"}


@pytest.mark.parametrize(
    ("kind", "of_others"),
    [
        ("LORA", STARTS),
        ("ADALORA", STARTS | {"use_dora", "ensure_weight_tying"}),
        ("IA3", set()),
        ("PROMPT_TUNING", set()),
        ("PREFIX_TUNING", set()),
    ],
)
def test_every_field_of_peft_has_been_looked_at(kind, of_others):
    """The table names fields that exist; each is free or has a reason, or belongs to another one that is refused."""
    kind = kinds.TRAINED[kind]
    fields = {entry.name for entry in dataclasses.fields(getattr(peft, kind.config))}
    known = kind.free | kind.free_when_loaded | kind.reasons.keys()
    assert known | kind.ranges.keys() | kind.accepted.keys() <= fields
    assert fields - known == of_others


def test_a_field_that_a_later_peft_adds_is_refused():
    @dataclasses.dataclass
    class LoraConfig(peft.LoraConfig):
        quantum: bool = False

    kinds.check_trained(LoraConfig(r=2))
    with pytest.raises(ValueError, match="quantum=True: TextGym does not know this setting; accepted: False"):
        kinds.check_trained(LoraConfig(r=2, quantum=True))


def test_a_config_and_a_dict_mean_the_same():
    """All linear layers but the head, unless the target modules are named; and the config is not written to."""
    names = []
    config = peft.LoraConfig(r=2)
    for lora in (
        {"r": 2},
        config,
        {"r": 2, "target_modules": ["q_proj"]},
        peft.LoraConfig(r=2, target_modules=["q_proj"]),
    ):
        model = small_llama()
        add_adapters(model, peft_config(None, lora))
        names.append({name for name, p in model.named_parameters() if p.requires_grad})
    assert names[0] == names[1] and len(names[0]) == 2 * 2 * 7
    assert names[2] == names[3] and all(".q_proj.lora_" in name for name in names[2])
    assert config.target_modules is None


@pytest.mark.parametrize("make", [small_llama, tied_llama, small_gpt2])
@pytest.mark.parametrize("given", [PROMPT, PREFIX, PREFIX | {"init_weights": "zero"}], ids=str)
def test_virtual_tokens_are_saved_for_plain_peft(make, given, tmp_path):
    """In peft, in a model of ours whoever calls it, and off; transformers' loader has no virtual tokens."""
    model = trained(make, given)
    expected, plain = logits(model), logits(make())
    assert (expected - plain).abs().max() > 0.1
    save_model(model, tmp_path)
    assert list(load_file(tmp_path / "adapter_model.safetensors")) == ["prompt_embeddings"]
    loaded, base = load_model(tmp_path), load_model(tmp_path / "base")
    assert torch.equal(logits(loaded), expected) and torch.equal(logits(base), plain)
    (name,) = (n for n, p in loaded.named_parameters() if p.requires_grad)
    assert name.endswith(".virtual_tokens.prompt_embeddings")
    by_peft = peft.PeftModel.from_pretrained(base, str(tmp_path))
    torch.testing.assert_close(logits(by_peft)[:, -5:], expected, atol=1e-5, rtol=0)
    options = {"input_ids": IDS, "max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    assert torch.equal(loaded.generate(**options), by_peft.generate(**options))
    loaded.disable_adapters()
    assert torch.equal(logits(loaded), plain)
    loaded.enable_adapters()
    assert torch.equal(logits(loaded), expected)
    with pytest.raises(ValueError, match="does not support prompt learning"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("given", [PROMPT, PREFIX], ids=str)
def test_virtual_tokens_beside_padding_and_in_bfloat16(given):
    """A row that is padded on the left is the row alone."""
    model = trained(lora=given)
    padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), IDS], 1)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1]])
    with torch.no_grad():
        found = model(input_ids=padded, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)).logits
    torch.testing.assert_close(found[:, 2:], logits(model), atol=1e-5, rtol=0)
    expected, low = logits(model), load_model(model, dtype="bfloat16")
    torch.testing.assert_close(logits(low).float(), expected, atol=0.2, rtol=0)


def test_virtual_tokens_may_begin_as_a_text():
    model = load_model("tiny")
    config = PROMPT | {
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": "an",
        "tokenizer_name_or_path": "tiny",
    }
    add(model, config)
    ids = load_tokenizer("tiny")("an")["input_ids"]
    found, embeddings = model.base_model.virtual_tokens.prompt_embeddings, model.get_input_embeddings().weight
    assert torch.equal(found, embeddings[(ids * 3)[:3]])
    with pytest.raises(ValueError, match="prompt_tuning_init_text='' has no token"):
        add(load_model("tiny"), config | {"prompt_tuning_init_text": ""})


@pytest.mark.parametrize("given", [PROMPT, PREFIX], ids=str)
def test_damaged_virtual_tokens_are_named(given, tmp_path):
    path = folder(tmp_path / "m", lora=given)
    rewrite(path, lambda t: t.update(other=torch.zeros(1)))
    with pytest.raises(
        ValueError, match="m/adapter_model.safetensors' holds the tensor 'other', which the model lacks"
    ):
        load_model(path)
    rewrite(path, lambda t: [t.pop("other"), t.update(prompt_embeddings=torch.zeros(3, 5))])
    with pytest.raises(ValueError, match="m/adapter_model.safetensors' does not fit the model: .*prompt_embeddings"):
        load_model(path)
    rewrite(path, lambda t: [t.update(other=torch.zeros(1)), t.pop("prompt_embeddings")])
    with pytest.raises(ValueError, match="m/adapter_model.safetensors' lacks the tensor 'prompt_embeddings'"):
        load_model(path)
    shutil.rmtree(path / "base")
    small_llama(hidden_size=64, num_hidden_layers=1).save_pretrained(path / "base")
    with pytest.raises(ValueError, match="the adapters of .*m' do not fit"):
        load_model(path)


def test_virtual_tokens_cannot_be_merged(tmp_path):
    path = folder(tmp_path / "m", lora=PROMPT)
    with pytest.raises(ValueError, match=r"m' are virtual tokens \(PROMPT_TUNING\), for which no weight"):
        load_merged(path)


def test_virtual_tokens_take_positions_and_a_cache():
    mdp = TextMDP(vocab_size=5, max_prompt_tokens=3, max_new_tokens=6, eos_token_ids=(4,), bos_token_id=4)
    many = PROMPT | {"num_virtual_tokens": 60}
    for make in (small_llama, small_gpt2):
        with pytest.raises(
            ValueError, match=r"64 positions, an episode up to 69 tokens; .* or num_virtual_tokens \(60\)"
        ):
            TokenModel(mdp, make(), peft=many)
        with pytest.raises(ValueError, match="gradient_checkpointing keeps no cache, where virtual tokens are"):
            TokenModel(mdp, make(), peft=PREFIX, gradient_checkpointing=True)
