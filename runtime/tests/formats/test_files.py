"""Good PEFT folders give what PEFT gives. Bad ones are in `test_adapter_defects`."""

import errno
import hashlib
import math
import os
import shutil
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import FalconConfig, FalconForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from kaito_runtime.errors import AdapterLoadError
from kaito_runtime.formats.files import read_adapter
from kaito_runtime.lora.inject import inject_lora


def llama(**changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
    return LlamaForCausalLM(LlamaConfig(**sizes | heads | changes)).eval()


def tied_llama():
    return llama(tie_word_embeddings=True)


def falcon():
    torch.manual_seed(0)
    config = FalconConfig(vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, bias=True)
    return FalconForCausalLM(config).eval()


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=32)).eval()


def train(model, path, **config):
    """What `save_pretrained` leaves after training: B is not zero."""
    tuned = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"} | config))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    tuned.save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (llama, {"target_modules": ["q_proj", "v_proj"]}),
        (llama, {"target_modules": "all-linear", "use_rslora": True, "r": 3, "lora_alpha": 5}),
        (llama, {"target_modules": r".*layers\.1\..*(up|down)_proj"}),
        (llama, {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]}),
        (llama, {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"}),
        (llama, {"target_modules": ["model.layers.0.mlp.up_proj", "k_proj"]}),
        (llama, {"target_modules": "all-linear", "exclude_modules": ["mlp.up_proj", "o_proj"]}),
        (
            llama,
            {
                "target_modules": "all-linear",
                "rank_pattern": {"q_proj": 20, r"layers\.1\.mlp\.\w+": 2, "^model.layers.0.mlp.up_proj": 1},
                "alpha_pattern": {"layers.0.self_attn.v_proj": 1, "down_proj": 40},
                "use_rslora": True,
            },
        ),
        (llama, {"target_modules": ["q_proj"], "init_lora_weights": "gaussian", "lora_dropout": 0.1}),
        (tied_llama, {"target_modules": "all-linear", "ensure_weight_tying": True}),
        (falcon, {"target_modules": ["query_key_value"]}),
        (falcon, {"target_modules": "all-linear", "r": 17}),
        (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    ],
)
def test_what_peft_accepts_gives_what_peft_gives(make, config, tmp_path):
    folder = train(make(), tmp_path / "adapter", **config)
    peft = PeftModel.from_pretrained(make(), folder).eval()
    ours = make()
    lora = inject_lora(ours)
    version = lora.bank.load(read_adapter(folder, ours, name="a"))
    ids = torch.randint(0, 61, (2, 6), generator=torch.Generator().manual_seed(2))
    lora.routing.set([(12, {version: 1.0})])
    with torch.no_grad():
        want, got, base = peft(ids).logits, ours(ids).logits, make()(ids).logits
    assert (got - want).abs().max() < 1e-4
    assert (base - want).abs().max() > 1e-3


def test_names_with_an_adapter_name_and_without_a_prefix_are_read(tmp_path):
    model = llama()
    folder = train(llama(), tmp_path / "a", target_modules=["q_proj"])
    want = read_adapter(folder, model, name="a")
    tensors = load_file(folder / "adapter_model.safetensors")
    for number, rename in enumerate(
        (lambda key: key.replace(".weight", ".default.weight"), lambda key: key.removeprefix("base_model.model."))
    ):
        other = tmp_path / str(number)
        shutil.copytree(folder, other)
        save_file({rename(key): tensor for key, tensor in tensors.items()}, other / "adapter_model.safetensors")
        got = read_adapter(other, model, name="a")
        assert got.matrices.keys() == want.matrices.keys() == {f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)}
        for path, matrix in want.matrices.items():
            assert torch.equal(got.matrices[path].a, matrix.a) and torch.equal(got.matrices[path].b, matrix.b)


def test_scaling_shapes_and_digest(tmp_path):
    folder = train(llama(), tmp_path / "a", target_modules=["q_proj"], r=4, lora_alpha=6, use_rslora=True)
    content = (folder / "adapter_config.json").read_bytes() + (folder / "adapter_model.safetensors").read_bytes()
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    adapter = read_adapter(folder, llama(), name="a", digest=digest)
    matrix = adapter.matrices["model.layers.0.self_attn.q_proj"]
    assert (adapter.name, adapter.digest) == ("a", digest)
    assert (matrix.a.shape, matrix.b.shape, matrix.scaling) == ((4, 32), (32, 4), 6 / math.sqrt(4))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return train(llama(), tmp_path_factory.mktemp("good") / "adapter", target_modules=["q_proj", "v_proj"])


@pytest.fixture(scope="module")
def model():
    return llama()


def test_another_digest_is_refused(good, model):
    with pytest.raises(AdapterLoadError, match=r"its digest is sha256:[0-9a-f]{64}, the Workspace asks for sha256:00"):
        read_adapter(good, model, name="tuned", digest="sha256:00")


def test_an_adapter_of_another_size_of_model_is_refused(good):
    with pytest.raises(AdapterLoadError, match=r"\[4, 32\], but rank 4 on the base model's \[64, 64\] layer needs"):
        read_adapter(good, llama(hidden_size=64), name="tuned")
    with pytest.raises(AdapterLoadError, match="which is not in the base model; was it trained on another model"):
        read_adapter(good, falcon(), name="tuned")


def test_file_that_cannot_be_read_now_may_be_later_and_a_damaged_one_may_not(tmp_path, monkeypatch):
    folder = train(llama(), tmp_path, target_modules=["q_proj"])
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
        with pytest.raises(AdapterLoadError, match=r"cannot be read: .*Input/output error") as unread:
            read_adapter(folder, llama(), name="a")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(AdapterLoadError, match="is damaged") as damaged:
        read_adapter(folder, llama(), name="a")
    assert unread.value.transient and not damaged.value.transient


def test_memory_that_runs_out_is_not_taken_for_damage(tmp_path, monkeypatch):
    folder = train(llama(), tmp_path, target_modules=["q_proj"])
    no_memory = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    monkeypatch.setattr(safetensors.torch, "load", Mock(side_effect=no_memory))
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        read_adapter(folder, llama(), name="a")


def test_copies_of_weights_that_are_spread_over_ranks_are_refused(tmp_path):
    folder = train(llama(), tmp_path, target_modules=["q_proj", "lm_head"])
    model = llama()
    model.lm_head.weight.full_tensor = Mock(side_effect=AssertionError("would wait for the other ranks"))
    with pytest.raises(AdapterLoadError, match=r"lm_head.base_layer.weight' is a copy .* processes share the model"):
        read_adapter(folder, model, name="a")
