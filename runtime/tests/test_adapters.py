"""Reading PEFT folders: PEFT itself is the truth for what is accepted, one defect each for what is refused."""

import hashlib
import json
import math
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import FalconConfig, FalconForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from kaito_runtime.adapters import read_adapter
from kaito_runtime.errors import AdapterLoadError
from kaito_runtime.lora import inject_lora

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


def llama(**changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
    return LlamaForCausalLM(LlamaConfig(**sizes | heads | changes)).eval()


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


# One defect each: what to do to a good folder (target_modules q_proj and v_proj, rank 4), and words of the refusal.


def config_of(**changes):
    def damage(folder: Path):
        config = json.loads((folder / "adapter_config.json").read_text()) | changes
        (folder / "adapter_config.json").write_text(json.dumps(config))

    return damage


def tensors_of(change):
    def damage(folder: Path):
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file({k: t.contiguous() for k, t in tensors.items()}, folder / "adapter_model.safetensors")

    return damage


def poke(value):
    def change(tensors):
        tensors[f"{Q0}.lora_A.weight"][0, 0] = value

    return change


def pickled(folder: Path):
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({}))


def truncated(folder: Path):
    content = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(content[: len(content) // 2])


A, B = f"{Q0}.lora_A.weight", f"{Q0}.lora_B.weight"
DEFECTS = {
    "no folder": (shutil.rmtree, "is not a folder"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "has no adapter_config.json"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
    "pickle": (pickled, "adapter_model.bin is a pickle"),
    "config no JSON": (lambda f: (f / "adapter_config.json").write_text("{r: 8"), "adapter_config.json is not JSON"),
    "config binary": (lambda f: (f / "adapter_config.json").write_bytes(b"\xff\xfe\x00"), "is not JSON"),
    "config a list": (lambda f: (f / "adapter_config.json").write_text("[]"), "must be a JSON object, got list"),
    "config is a folder": (
        lambda f: ((f / "adapter_config.json").unlink(), (f / "adapter_config.json").mkdir()),
        "has no adapter_config.json",
    ),
    "weights empty": (lambda f: (f / "adapter_model.safetensors").write_bytes(b""), "is damaged"),
    "weights truncated": (truncated, "is damaged"),
    "no tensors": (tensors_of(dict.clear), "holds no tensors"),
    "not LoRA": (config_of(peft_type="IA3"), "peft_type must be 'LORA', got 'IA3'"),
    "no peft_type": (config_of(peft_type=None), "peft_type must be 'LORA', got None"),
    "DoRA": (config_of(use_dora=True), "use_dora.*magnitude"),
    "DoRA tensor": (
        tensors_of(lambda t: t.update({f"{Q0}.lora_magnitude_vector": torch.ones(32)})),
        "lora_magnitude_vector' belongs to DoRA",
    ),
    "modules_to_save": (config_of(modules_to_save=["lm_head"]), r"modules_to_save is set to \['lm_head'\]"),
    "bias": (config_of(bias="lora_only"), "bias must be 'none', got 'lora_only'"),
    "lora_bias": (config_of(lora_bias=True), "lora_bias"),
    "trained tokens": (config_of(trainable_token_indices=[1, 2]), "trainable_token_indices"),
    "bare parameters": (config_of(target_parameters=["experts.w"]), "target_parameters"),
    "layer replication": (config_of(layer_replication=[[0, 2]]), "layer_replication"),
    "aLoRA": (config_of(alora_invocation_tokens=[5]), "alora_invocation_tokens"),
    "QA-LoRA": (config_of(use_qalora=True), "use_qalora"),
    "a key of tomorrow": (config_of(use_quantum_lora=True), "use_quantum_lora is set to True: it is not known here"),
    "PiSSA": (config_of(init_lora_weights="pissa_niter_4"), "init_lora_weights is 'pissa_niter_4'"),
    "OLoRA": (config_of(init_lora_weights="olora"), "init_lora_weights is 'olora'"),
    "rank 0": (config_of(r=0), "rank of '.*q_proj' must be an integer of 1 or more, got 0"),
    "rank a text": (config_of(r="4"), "r of '.*q_proj' must be a finite number, got '4'"),
    "rank not that of A": (config_of(r=8), r"lora_A of '.*q_proj' has shape \[4, 32\], but rank 8 .* needs \[8, 32\]"),
    "rank pattern elsewhere": (config_of(rank_pattern={"v_proj": 5}), "lora_A of '.*v_proj' has shape"),
    "rank pattern no object": (config_of(rank_pattern=[3]), "rank_pattern must map"),
    "rank pattern no regex": (config_of(rank_pattern={"(": 3}), "rank_pattern.*not a regular expression"),
    "alpha infinite": (config_of(lora_alpha=math.inf), "lora_alpha of '.*' must be a finite number, got inf"),
    "alpha a flag": (config_of(lora_alpha=True), "must be a finite number, got True"),
    "targets absent": (config_of(target_modules=["Wqkv"]), r"target_modules \['Wqkv'\] name no module"),
    "targets no regex": (config_of(target_modules="("), "cannot be read"),
    "targets no list": (config_of(target_modules=3), "cannot be read"),
    "targets fewer": (config_of(target_modules=["q_proj"]), "tensors for '.*v_proj', which target_modules do not name"),
    "targets more": (config_of(target_modules=["q_proj", "v_proj", "k_proj"]), "name '.*k_proj', but .* has no lora_A"),
    "no lora_B": (tensors_of(lambda t: t.pop(B)), "'model.layers.0.self_attn.q_proj' has no lora_B"),
    "no lora_A": (tensors_of(lambda t: t.pop(A)), "'model.layers.0.self_attn.q_proj' has no lora_A"),
    "a module's pair absent": (tensors_of(lambda t: (t.pop(A), t.pop(B))), "name '.*q_proj', but"),
    "two adapters in one": (
        tensors_of(lambda t: t.update({f"{Q0}.lora_A.other.weight": torch.ones(4, 32)})),
        "more than one lora_A",
    ),
    "A transposed": (tensors_of(lambda t: t.update({A: t[A].t()})), r"has shape \[32, 4\], .* needs \[4, 32\]"),
    "B transposed": (tensors_of(lambda t: t.update({B: t[B].t()})), r"has shape \[4, 32\], .* needs \[32, 4\]"),
    "A a vector": (tensors_of(lambda t: t.update({A: t[A][0]})), r"has shape \[32\]"),
    "no such module": (
        tensors_of(lambda t: t.update({k.replace("layers.0", "layers.7"): v.clone() for k, v in list(t.items())})),
        "'model.layers.7.self_attn.q_proj', which is no module of the base model",
    ),
    "a module that is no layer": (
        tensors_of(
            lambda t: t.update({k.replace(".q_proj", ""): v.clone() for k, v in list(t.items()) if "q_proj" in k})
        ),
        "is a LlamaAttention, not a linear layer",
    ),
    "embedding": (
        tensors_of(lambda t: t.update({"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(4, 61)})),
        "adapts an embedding",
    ),
    "vocabulary extension": (
        tensors_of(lambda t: t.update({"base_model.model.model.embed_tokens.weight": torch.ones(64, 32)})),
        r"embed_tokens.weight' \[64, 32\] replaces an embedding or extends the vocabulary",
    ),
    "a stray tensor": (
        tensors_of(lambda t: t.update({"base_model.model.score.weight": torch.ones(2, 32)})),
        "'base_model.model.score.weight' is not lora_A or lora_B",
    ),
    "NaN": (tensors_of(poke(math.nan)), "lora_A.weight' holds NaN"),
    "infinite": (tensors_of(poke(-math.inf)), "lora_A.weight' holds NaN or infinite"),
    "absurdly large": (tensors_of(poke(1e30)), "magnitude 1e[+]30"),
    "integers": (tensors_of(lambda t: t.update({A: torch.ones(4, 32, dtype=torch.int8)})), "dtype torch.int8"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return train(llama(), tmp_path_factory.mktemp("good") / "adapter", target_modules=["q_proj", "v_proj"])


@pytest.fixture(scope="module")
def model():
    return llama()


@pytest.mark.parametrize("defect", DEFECTS)
def test_what_cannot_be_applied_exactly_is_refused(defect, good, model, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(good, folder)
    read_adapter(folder, model, name="tuned")
    damage, words = DEFECTS[defect]
    damage(folder)
    with pytest.raises(AdapterLoadError, match=words) as refusal:
        read_adapter(folder, model, name="tuned")
    assert refusal.value.name == "tuned"
    assert str(refusal.value).startswith("adapter 'tuned' cannot be loaded: ")


def test_another_digest_is_refused(good, model):
    with pytest.raises(AdapterLoadError, match=r"its digest is sha256:[0-9a-f]{64}, the Workspace asks for sha256:00"):
        read_adapter(good, model, name="tuned", digest="sha256:00")


def test_an_adapter_of_another_size_of_model_is_refused(good):
    with pytest.raises(AdapterLoadError, match=r"\[4, 32\], but rank 4 on the base model's \[64, 64\] layer needs"):
        read_adapter(good, llama(hidden_size=64), name="tuned")
    with pytest.raises(AdapterLoadError, match="no module of the base model; was it trained on another model"):
        read_adapter(good, falcon(), name="tuned")


def test_an_adapter_of_the_head_is_refused_by_the_bank(tmp_path):
    folder = train(llama(), tmp_path / "a", target_modules=["lm_head"])
    model = llama()
    with pytest.raises(AdapterLoadError, match=r"lm_head.base_layer.weight' is a copy of a base weight"):
        read_adapter(folder, model, name="a")
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({k: t for k, t in tensors.items() if "base_layer" not in k}, folder / "adapter_model.safetensors")
    lora = inject_lora(model)
    with pytest.raises(AdapterLoadError, match="'lm_head' is not among the 14 adapted layers"):
        lora.bank.load(read_adapter(folder, model, name="a"))
