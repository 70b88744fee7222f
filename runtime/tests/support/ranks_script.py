"""What two ranks do inside one process group. torchrun runs it (`two_ranks`); each rank writes what it found as JSON.

Every check runs on both ranks at the same time, in this order; the last one leaves the group broken.
"""

import asyncio
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import kaito_runtime.engine.torch_engine as torch_engine
import kaito_runtime.ranks.group as distributed
from kaito_runtime.engine.protocol import Job, Sampling
from kaito_runtime.engine.torch_engine import TorchEngine
from kaito_runtime.errors import AdapterLoadError, GroupLostError, RequestError
from kaito_runtime.formats.files import read_adapter
from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.model.load import load_model
from kaito_runtime.model.memory import BatchLimits
from kaito_runtime.options import Ranks
from kaito_runtime.ranks.follow import DriftError, Follower
from kaito_runtime.ranks.group import Group, join
from kaito_runtime.ranks.lead import Lead
from kaito_runtime.testing.models import merged, save_adapter, save_model
from kaito_runtime.testing.truth import TINY, save_random

GREEDY = Sampling(temperature=0)
LIMITS = BatchLimits(cache_tokens=512, page_tokens=8, step_tokens=64, requests=8)
FALCON = {name: size for name, size in TINY.items() if name not in ("intermediate_size", "num_key_value_heads")}
CONFIGS: dict[str, Callable[[], Any]] = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**TINY)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**TINY, head_dim=8)),
    "phi": lambda: PhiForCausalLM(PhiConfig(**TINY)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**TINY)),
    "falcon-rw": lambda: FalconForCausalLM(FalconConfig(**FALCON, multi_query=False, parallel_attn=False, bias=True)),
}
ARCHITECTURES = ("llama", "falcon-old", "falcon-new", *CONFIGS)


def models(group: Group, folder: Path) -> dict[str, dict[str, float]]:
    """Returns by architecture how far logits are from those of merged weights, and how far adapters move them."""
    found = {}
    for name in ARCHITECTURES:
        model = folder / name
        if group.ranks.leads:
            model.mkdir()
            if name in CONFIGS:
                model_of = CONFIGS[name]()
                with torch.no_grad():
                    for parameter in model_of.parameters():  # biases too, that the wrong rank's would show
                        torch.nn.init.normal_(parameter, std=0.15)
                save_random(model_of, model)
            else:
                save_model(model, name)
            save_adapter(model, model / "all", seed=2, r=20, lora_alpha=16, target_modules="all-linear")
        group.exchange(None)
        loaded = load_model(model, dtype="float32", ranks=group.ranks)
        lora = inject_lora(loaded.model, exclude=loaded.recipe.lora_exclude, shards=loaded.shards, group=group.model)
        version = lora.bank.load(read_adapter(model / "all", loaded.model, name="all"))
        ids = torch.arange(40, 57)[None]
        rows = {}
        for strength in (0.0, 0.75):
            lora.routing.set([(17, {version: strength})])
            with torch.inference_mode():
                rows[strength] = loaded.model(ids, use_cache=False).logits
        with torch.no_grad():
            truth = {s: merged(model, {model / "all": s} if s else {})(ids).logits for s in rows}
        found[name] = {f"{s:g}": float((rows[s] - truth[s]).abs().max()) for s in rows}
        found[name]["moved"] = float((rows[0.75] - rows[0.0]).abs().max())
        found[name]["layers"] = len(loaded.shards)
        found[name]["here"] = sum(p.numel() for layer in lora.layers.values() for p in [layer.weight])
        found[name]["whole"] = sum(k * n for k, n in (layer.adapter_shape for layer in lora.layers.values()))
    return found


def messages(group: Group, folder: Path) -> bool:
    """Sends small and large messages; returns whether all arrived."""
    sent = [["a", 1], ["b", list(range(200_000))], ["c", "x" * 16376], ["d"], ["e", 0.1, None, True, "é"]]
    if group.ranks.leads:
        for message in sent:
            group.send(*message)
        return group.collect("leader") == ["leader", True]
    group.reply([group.receive() for _ in sent] == sent)
    return True


def fail_once(runner: Any) -> None:
    """Has the next drop raise when it is done."""
    drop = runner.drop

    def fails(request_ids: Any) -> None:
        runner.drop = drop
        drop(request_ids)
        raise RuntimeError("a drop failed")

    runner.drop = fails


class BrokenGrammar:
    """Raises when a token is to be chosen."""

    stuck = ""

    def start(self) -> "BrokenGrammar":
        return self

    def allowed(self) -> bytes:
        raise ValueError("a bug")

    def push(self, token: int) -> None:
        pass


class Setup:
    """The engine on the first rank, the follower on the second; `lead` is what the first one does."""

    def __init__(self, group: Group, folder: Path) -> None:
        self.group = group
        # Another folder on each rank, as on two nodes.
        self.adapters = folder / f"adapters-{group.ranks.rank}"
        self.adapters.mkdir()
        self.model = folder / "llama"
        self.failing = False
        loaded = load_model(self.model, dtype="float32", ranks=group.ranks)
        lora = inject_lora(loaded.model, shards=loaded.shards, group=group.model)
        self.lora = lora
        if group.ranks.leads:
            runner = Lead(loaded.model, lora, LIMITS, group, self.adapters)
            self.engine = TorchEngine(loaded.model, runner, end_tokens=(), context_length=256, watch_logits=self._watch)
        else:
            self.follower = Follower(loaded.model, lora, LIMITS, group, adapters_dir=self.adapters, arrival_seconds=1.0)

    def _watch(self, prompts: object, logits: object) -> None:
        if self.failing:
            self.failing = False
            raise RuntimeError("sampling failed")

    async def tokens(self, prompt: list[int], count: int = 6, sampling: Sampling = GREEDY) -> list[int]:
        return [token.id async for token in self.engine.submit(Job(prompt, count, {}, sampling))]


async def lead(setup: Setup, folder: Path) -> dict[str, Any]:
    engine, found = setup.engine, {}
    engine.start()
    found["tokens"] = await setup.tokens([1, 2, 3])
    broken = setup.tokens([4, 5], sampling=Sampling(grammar=BrokenGrammar()))
    beside, error = await asyncio.gather(setup.tokens([1, 2, 3]), broken, return_exceptions=True)
    found["beside"], found["broken"] = beside, str(error)

    for rank in (0, 1):
        shutil.copytree(setup.model / "all", folder / f"adapters-{rank}" / "same")
    shutil.copytree(setup.model / "all", setup.adapters / "other")
    save_adapter(setup.model, folder / "adapters-1" / "other", seed=9, r=4, target_modules=["q_proj"])
    await engine.load_adapter("same", setup.adapters / "same", None)
    for name, where in (("other", setup.adapters / "other"), ("missing", setup.adapters / "late")):
        if name == "missing":
            shutil.copytree(setup.model / "all", where)
        try:
            await engine.load_adapter(name, where, None)
        except AdapterLoadError as error:
            found[name] = error.reason
    found["resident"] = sorted(engine.stats().resident_bytes)

    setup.failing = True  # and then the drop of the request, on both ranks
    fail_once(engine._runner._batcher)
    try:
        await setup.tokens([4, 5])
    except RequestError as error:
        found["failed"] = str(error)
    found["tokens after"] = await setup.tokens([1, 2, 3])
    found["alive"] = engine.alive

    (folder / "drift").touch()
    try:
        await setup.tokens([7, 7, 7], 200)
    except RequestError as error:
        found["drift"] = str(error)
    found["lost"] = engine.lost
    found["alive after"] = engine.alive
    await engine.stop()
    return found


def follow(setup: Setup, folder: Path) -> str:
    """Follows until it drifts, as if a message had been lost on the way."""
    follower, receive = setup.follower, setup.group.receive
    fail_once(follower._runner._batcher)

    def deaf() -> Any:
        message = receive()
        while message[0] == "add" and (folder / "drift").exists():
            message = receive()
        return message

    setup.group.receive = deaf  # type: ignore[method-assign]
    try:
        follower.run()
    except DriftError as error:
        return str(error)
    return "no drift"


async def lead_one_that_hangs(setup: Setup) -> dict[str, Any]:
    """Asks for tokens while the other rank stands still in a pass."""
    engine = setup.engine
    engine.start()
    await setup.tokens([1, 2, 3])
    (setup.adapters / "hang").touch()
    stream = engine.submit(Job([4, 5], 50, {}, GREEDY))
    found: dict[str, Any] = {"alive": engine.alive}
    try:
        async for _ in stream:
            pass
    except RequestError as error:
        found["error"] = str(error)
    found |= {"lost": engine.lost, "alive after": engine.alive}
    await engine.stop()
    return found


def hang(group: Group, folder: Path) -> None:
    if group.ranks.leads:
        save_model(folder / "llama", "llama")
    group.exchange(None)
    setup = Setup(group, folder)
    if group.ranks.leads:
        (folder / "leader.json").write_text(json.dumps(asyncio.run(lead_one_that_hangs(setup))))
        os._exit(0)  # as a server's process ends, with a thread that hangs

    def stand_still(*_: object) -> None:
        while (folder / "adapters-0" / "hang").exists() and not (folder / "leader.json").exists():
            time.sleep(0.05)

    setup.follower._model.get_submodule("model.layers.1").register_forward_pre_hook(stand_still)
    setup.follower.run()


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    distributed._SILENCE_SECONDS = 20.0
    torch_engine._END_SECONDS = 1.0
    ranks = Ranks.from_env(os.environ)
    group = join(ranks, os.environ)
    if "hang" in sys.argv:
        torch_engine._BEAT_SECONDS, torch_engine._HANG_SECONDS = 0.2, 1.0
        hang(group, folder)
        return
    result: dict[str, Any] = {"ranks": dataclasses.asdict(ranks), "messages": messages(group, folder)}
    result["models"] = models(group, folder)
    setup = Setup(group, folder)
    if ranks.leads:
        result["engine"] = asyncio.run(lead(setup, folder))
        (folder / "leader.json").write_text(json.dumps(result))
    else:
        (folder / "follower.json").write_text(json.dumps(follow(setup, folder)))


if __name__ == "__main__":
    try:
        main()
    except GroupLostError as error:
        sys.exit(f"lost: {error}")
