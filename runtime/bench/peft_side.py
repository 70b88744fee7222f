"""The other side of the benchmark: transformers' `generate` over a PEFT model, one static batch after another."""

from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from stopwatch import Run, Stopwatch
from transformers import AutoTokenizer, GenerationConfig
from workloads import Request, Strengths

from kaito_runtime.testing.models import load_fp32

__all__ = ["Peft"]


class Peft:
    """A base model, and the same with adapters.

    Each set of strengths becomes one combined adapter (`add_weighted_adapter`, "cat"), chosen per row by
    `adapter_names`: the same sums as ours.
    """

    def __init__(self, path: Path, folders: dict[str, Path]) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        self._tokenizer.padding_side = "left"
        self._tokenizer.pad_token = self._tokenizer.pad_token or self._tokenizer.eos_token
        first, *others = folders.items()
        model = PeftModel.from_pretrained(load_fp32(path), first[1], adapter_name=first[0])
        for name, folder in others:
            model.load_adapter(folder, adapter_name=name)
        self._model: Any = model.eval()
        self._plain = load_fp32(path)  # PEFT's layers take time even where they add nothing
        for generator in (self._model, self._plain):  # where its argument has None, `generate` reads this
            generator.generation_config.eos_token_id = None
        self._combined: dict[tuple[tuple[str, float], ...], str] = {}

    def answer_all(self, clients: Sequence[Sequence[Request]]) -> Run:
        """Answers the first requests of all clients as one batch, then their second ones, and so on."""
        return reduce(add, (self._batch(requests) for requests in zip(*clients, strict=True)))

    def _batch(self, requests: Sequence[Request]) -> Run:
        """Answers requests with the same kind of strengths; the batch runs until the longest is answered."""
        chosen = [self._adapter(request.strengths) for request in requests]  # prepared before the clock starts
        longest = max(request.tokens for request in requests)
        config = GenerationConfig(
            do_sample=False, max_new_tokens=longest, eos_token_id=None, pad_token_id=self._tokenizer.pad_token_id
        )
        model, more = self._model, {}
        if len(set(chosen)) > 1:
            more = {"adapter_names": chosen}
        elif chosen[0]:
            model.base_model.set_adapter(chosen[0])
        else:
            model = self._plain
        watch = Stopwatch()
        batch = self._tokenizer([request.prompt for request in requests], return_tensors="pt", padding=True)
        rows = model.generate(**batch, generation_config=config, **more)[:, batch["input_ids"].shape[1] :]
        pairs = zip(rows, requests, strict=True)
        return watch.stop([self._tokenizer.decode(row[: r.tokens], skip_special_tokens=True) for row, r in pairs])

    def _adapter(self, strengths: Strengths) -> str:
        key = tuple(strengths.items())
        if key and key not in self._combined:
            name = f"mix{len(self._combined)}"
            names, weights = list(strengths), list(strengths.values())
            self._model.add_weighted_adapter(names, weights, name, combination_type="cat")
            for module in self._model.modules():  # PEFT scales rsLoRA's a second time, by the square root of the rank
                if isinstance(module, LoraLayer):
                    module.scaling[name] = 1.0
            self._combined[key] = name
        return self._combined.get(key, "")
