"""Trains the two demo adapters, `pirate` and `bullets`: `python examples/train_adapters.py --out examples/adapters`.

It needs `pip install 'kaito-core[demo]'` and about 15 minutes on two CPU cores, or half of that with `--bf16` on a CPU
that computes with bfloat16 (AMX). `score_adapters.py` measures the result.
"""

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from demo_data import Lesson, lessons
from demo_model import BASE_MODEL, answer_loss, encode, load_base
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch.optim.lr_scheduler import OneCycleLR
from transformers import PreTrainedTokenizerBase

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
# They differ in everything that a server must handle: rank, target modules, and how alpha becomes the scaling.
ADAPTERS = {
    "pirate": LoraConfig(  # scaling 16 / 4 = 4
        r=4, lora_alpha=16, target_modules=[*ATTENTION, "gate_proj", "up_proj", "down_proj"], task_type="CAUSAL_LM"
    ),
    "bullets": LoraConfig(  # scaling 8 / sqrt(8) = 2.83
        r=8, lora_alpha=8, use_rslora=True, target_modules=ATTENTION, task_type="CAUSAL_LM"
    ),
}
LEARNING_RATE = 1e-3
BATCH = 8


def batches(course: list[Lesson], epochs: int) -> Iterator[list[Lesson]]:
    """Yields shuffled batches, epoch by epoch. All lessons of a batch have one strength, as all layers do."""
    shuffler = random.Random(0)
    for _ in range(epochs):
        epoch = []
        for strength in sorted({lesson.strength for lesson in course}):
            same = [lesson for lesson in course if lesson.strength == strength]
            shuffler.shuffle(same)
            epoch += [same[start : start + BATCH] for start in range(0, len(same), BATCH)]
        shuffler.shuffle(epoch)
        yield from epoch


def train(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, plan: list[list[Lesson]], *, bf16: bool, title: str
) -> None:
    """Trains an adapter, each lesson at its strength."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
    schedule = OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=len(plan), pct_start=0.1)
    model.train()
    started = time.monotonic()
    for step, batch in enumerate(plan, start=1):
        for layer in layers:
            layer.set_scale("default", batch[0].strength)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = answer_loss(model, [encode(tokenizer, lesson.prompt, lesson.answer) for lesson in batch])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 10 == 0 or step == len(plan):
            seconds = time.monotonic() - started
            print(f"{title}: step {step} of {len(plan)}, loss {loss.item():.2f}, {seconds:.0f} s", flush=True)


def save(model: PeftModel, folder: Path) -> None:
    """Writes an adapter as PEFT does, but in bfloat16, which is half the size."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: w.to(torch.bfloat16).contiguous() for name, w in get_peft_model_state_dict(model).items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"]
    config.base_model_name_or_path = BASE_MODEL
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)  # PEFT has a set, whose order differs between runs
    config.save_pretrained(folder)


def main() -> None:
    """Trains each adapter on a fresh copy of the base model, and writes it to a folder under `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("adapters"))
    parser.add_argument("--only", choices=sorted(ADAPTERS), help="train only this one")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name, config in ADAPTERS.items():
        if options.only in (None, name):
            torch.manual_seed(0)
            base, tokenizer = load_base()
            model = get_peft_model(base, config)
            train(model, tokenizer, list(batches(lessons(name), options.epochs)), bf16=options.bf16, title=name)
            save(model, options.out / name)


if __name__ == "__main__":
    main()
