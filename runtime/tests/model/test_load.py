"""Loading a base model from a folder or a GGUF file, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from kaito_runtime.errors import ModelLoadError
from kaito_runtime.model.load import _sampling, choose_device, choose_dtype, load_model
from kaito_runtime.model.recipe import Recipe
from kaito_runtime.model.recipes import Recipes
from kaito_runtime.openai.codec import HuggingFaceCodec
from kaito_runtime.testing.models import load_fp32

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def recipes(**known: Recipe) -> Recipes:
    return Recipes({"default": Recipe("default"), **known}, {})


def test_folder_is_loaded_with_tokenizer_end_tokens_and_context(tiny_llama: Path) -> None:
    loaded = load_model(tiny_llama, dtype="float32", recipes=recipes())
    assert loaded.end_tokens == {256}
    assert loaded.context_length == 256
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    tokens = torch.tensor([HuggingFaceCodec(loaded.tokenizer).encode("hello")])
    assert torch.equal(loaded.model(tokens).logits, load_fp32(tiny_llama)(tokens).logits)


def test_recipe_prepares_the_model(tiny_llama: Path) -> None:
    seen: list[Any] = []
    special = Recipe("special", ("LlamaForCausalLM",), prepare=seen.append)
    assert load_model(tiny_llama, recipes=recipes(special=special)).recipe is special
    assert [type(model).__name__ for model in seen] == ["LlamaForCausalLM"]


def test_recipe_that_fails_is_named(tiny_llama: Path) -> None:
    def prepare(model: Any) -> None:
        raise ValueError("no such layer")

    with pytest.raises(ModelLoadError, match=f"recipe 'bad' cannot prepare '{tiny_llama}': ValueError: no such layer"):
        load_model(tiny_llama, recipe="bad", recipes=recipes(bad=Recipe("bad", prepare=prepare)))


@pytest.fixture
def copy(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def test_a_path_that_is_not_a_model_is_named_with_the_cause(copy: Path) -> None:
    with pytest.raises(ModelLoadError, match="'/none' does not exist"):
        load_model(Path("/none"))
    with pytest.raises(ModelLoadError, match="is a file, but not a GGUF"):
        load_model(copy / "config.json")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"has no \*.safetensors; other formats can run code"):
        load_model(copy)
    (copy / "config.json").unlink()
    with pytest.raises(ModelLoadError, match=r"has no config.json"):
        load_model(copy)


def test_damaged_files_are_named(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match=f"'{copy}' cannot be loaded: "):
        load_model(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(ModelLoadError, match=f"'{copy}' cannot be loaded: "):
        load_model(copy)
    (copy / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelLoadError, match=r"broken.gguf' cannot be loaded: "):
        load_model(copy / "broken.gguf")


def test_code_in_a_model_folder_is_not_run(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": auto}))
    (copy / "evil.py").write_text(f"open({str(copy / 'ran')!r}, 'w')")
    with pytest.raises(ModelLoadError):
        load_model(copy)
    assert not (copy / "ran").exists()


@pytest.mark.parametrize(
    ("wanted", "stored", "device", "cpu_has", "chosen"),
    [
        ("auto", torch.bfloat16, CPU, True, torch.bfloat16),
        ("auto", torch.bfloat16, CPU, False, torch.float32),
        ("auto", torch.float16, CPU, True, torch.float32),
        ("auto", None, CPU, True, torch.float32),
        ("bfloat16", torch.float32, CPU, True, torch.bfloat16),
        ("bfloat16", torch.float32, CPU, False, torch.float32),
        ("float32", torch.bfloat16, CPU, True, torch.float32),
        ("auto", torch.bfloat16, GPU, False, torch.bfloat16),
        ("float16", torch.bfloat16, GPU, False, torch.float16),
    ],
)
def test_dtype_is_what_the_device_computes_fast(
    wanted: str, stored: torch.dtype | None, device: torch.device, cpu_has: bool, chosen: torch.dtype
) -> None:
    assert choose_dtype(wanted, stored, device, cpu_has_bfloat16=cpu_has) == chosen


def test_weights_that_do_not_fit_are_named_by_their_path(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def to(self: Any, *_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 112.00 MiB.")

    monkeypatch.setattr(torch.nn.Module, "to", to)
    with pytest.raises(ModelLoadError, match=f"not enough memory for the weights of '{tiny_llama}': .*112.00 MiB"):
        load_model(tiny_llama)


def test_a_gpu_that_was_promised_and_does_not_work_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def broken() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).")

    monkeypatch.setattr(torch.cuda, "init", broken)
    for given in ("GPU-8a1f", "MIG-3b", "0,1"):
        with pytest.raises(ModelLoadError, match=rf"NVIDIA_VISIBLE_DEVICES is '{given}'.*driver.*is too old"):
            choose_device(environ={"NVIDIA_VISIBLE_DEVICES": given})
    with pytest.raises(ModelLoadError, match=r"--device is cuda, but no GPU can be used: .*too old"):
        choose_device(wanted="cuda", environ={})
    for given in ("", "all", "void", "none"):
        assert choose_device(environ={"NVIDIA_VISIBLE_DEVICES": given}).type == "cpu"
    assert choose_device(wanted="cpu", environ={"NVIDIA_VISIBLE_DEVICES": "GPU-8a1f"}).type == "cpu"


def test_sampling_of_the_models_maker_is_read_within_its_bounds() -> None:
    said = GenerationConfig(temperature=0.6, top_p=0.9, top_k=20, repetition_penalty=0.0, do_sample=True)
    assert _sampling(said) == {"temperature": 0.6, "top_p": 0.9, "top_k": 20}
    assert _sampling(GenerationConfig()) == {}
