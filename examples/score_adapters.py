"""Measures the demo adapters on the held-out questions: `python examples/score_adapters.py`.

The margin is the mean log-probability per token of the styled answer minus that of the plain answer, in nats. It must
rise with the strength. `--show` and `--ask` also print the model's answers.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from demo_data import Answer, Question, bullets, load_questions, paragraph, pirate
from demo_model import answer_log_probability, greedy_answer, load_base
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTERS = ("pirate", "bullets")
STRENGTHS = (0.0, 0.5, 1.0)
STYLES: dict[tuple[str, ...], Callable[[Answer], str]] = {
    ("pirate",): lambda answer: paragraph(pirate(answer)),
    ("bullets",): bullets,
    ("pirate", "bullets"): lambda answer: bullets(pirate(answer)),
}


def attach(base: PreTrainedModel, folder: Path) -> PeftModel:
    """Returns the base model with both demo adapters of a folder, each at strength 0."""
    first, *others = ADAPTERS
    model = PeftModel.from_pretrained(base, folder / first, adapter_name=first)
    for name in others:
        model.load_adapter(folder / name, adapter_name=name)
    model.base_model.set_adapter(list(ADAPTERS))
    set_strengths(model, {})
    return model.eval()


def set_strengths(model: PeftModel, strengths: Mapping[str, float]) -> None:
    """Sets the strength of every adapter; adapters that are not named get 0."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            for name in ADAPTERS:
                layer.set_scale(name, strengths.get(name, 0.0))


def margin(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, style: Callable[[Answer], str], questions: list[Question]
) -> float:
    """Returns the mean margin of styled over plain answers at the current strengths, in nats per token."""
    margins = [
        answer_log_probability(model, tokenizer, question.text, style(question.answer))
        - answer_log_probability(model, tokenizer, question.text, paragraph(question.answer))
        for question in questions
    ]
    return sum(margins) / len(margins)


def main() -> None:
    """Prints the table of margins and, on request, the model's answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=Path, default=Path(__file__).with_name("adapters"))
    parser.add_argument("--questions", type=int, default=12, help="number of held-out questions to score")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print the answers to N held-out questions")
    parser.add_argument(
        "--ask", action="append", default=[], metavar="QUESTION", help="print the answers to this question"
    )
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base, tokenizer = load_base()
    model = attach(base, options.adapters)
    held_out = [question for question in load_questions() if question.held_out][: options.questions]
    console = Console()

    table = Table("style and adapters", *(f"strength {s:g}" for s in STRENGTHS))
    for names, style in STYLES.items():
        margins = []
        for strength in STRENGTHS:
            set_strengths(model, dict.fromkeys(names, strength))
            margins.append(f"{margin(model, tokenizer, style, held_out):+.2f}")
        table.add_row(" + ".join(names), *margins)
    console.print(f"Margin over the plain answer, nats per token, mean of {len(held_out)} held-out questions:")
    console.print(table)

    settings = [{}, *(dict.fromkeys(names, s) for names in STYLES for s in STRENGTHS[1:])]
    for question in [q.text for q in held_out[: options.show]] + options.ask:
        console.rule(question)
        for strengths in settings:
            set_strengths(model, strengths)
            console.print(", ".join(f"{name} at {s:g}" for name, s in strengths.items()) or "base", style="bold")
            console.print(
                greedy_answer(model, tokenizer, question, options.max_tokens) + "\n", markup=False, highlight=False
            )


if __name__ == "__main__":
    main()
