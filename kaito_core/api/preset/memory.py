"""How the memory of one GPU is spent, and whether a model starts in it. Arithmetic alone: no torch, no machine asked.

The operator's sizing calls it with what a preset says, before there is a machine; the runtime calls it with what it has
measured, and prints the table. Both therefore say the same of the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kaito_core.api.preset.model import ModelPreset
from kaito_core.api.preset.quantization import SHARE_LEFT

__all__ = [
    "GIB",
    "LEAST_CONTEXT",
    "PAGE_RANKS",
    "USUAL_RANK",
    "MemoryItem",
    "MemoryOptions",
    "MemoryPlan",
    "ModelMemory",
    "format_bytes",
    "gpu_room",
    "pages_of",
    "plan_memory",
    "preset_memory",
    "step_bytes",
]

GIB = 1 << 30
PAGE_RANKS = 16  #: Ranks of an adapter that share a page of the pools; `kaito_runtime.kernels.launch.PAGE`.
USUAL_RANK = 64  #: An adapter of this rank must fit where nothing else is asked for.
LEAST_CONTEXT = (
    2048  #: Tokens; a server whose cache holds less than this, and less than the model's context, is refused.
)
MOST_PAGES = 1024  # by default
ADAPTER_SHARE = 0.2  # of what one request of the full context leaves; keys and values of more requests get the rest

CONTEXT_BYTES = GIB // 2  # CUDA context, workspaces of its libraries, compiled kernels
GROUP_BYTES = GIB // 2  # more where GPUs share a model: buffers of NCCL
# What of a card's nominal memory programs can have: the driver keeps some, and GDDR cards keep a sixteenth to correct
# errors. torch.cuda.mem_get_info of an idle card, rounded down.
USABLE_SHARE = 0.975
USABLE_GIB = {"T4": 14.5, "A10": 22.0, "A10G": 22.0, "L4": 22.0}

# Where only a model's size is known: of a usual decoder, layers = width / 128, and each has 12 * width ** 2 parameters.
_WIDTH_PER_LAYER = 128
_PARAMETERS_PER_WIDTH = 12
_VOCABULARY, _LARGE_VOCABULARY = 130_000, 160_000
_LINEAR_LAYERS = 7  # q, k, v, o, gate, up, down
_PAGE_MARGIN = 1.1
_STEP_VALUES = 24  # per token and unit of width, alive at once in the largest layer
_LOGIT_BYTES = 16  # per row and word: the scores, in float32, and the copies that sampling makes


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """What a model needs on one GPU.

    Attributes:
        weights: Bytes of the weights.
        kv_per_token: Bytes of the keys and values of one token, over all layers.
        page: Bytes of one page: `PAGE_RANKS` ranks of adapters for every layer.
        step_per_token: Bytes of activations per token of a step.
        logits_per_row: Bytes per row that gets a token.
        context_length: Longest sequence, in tokens.
    """

    weights: int
    kv_per_token: int
    page: int
    step_per_token: int
    logits_per_row: int
    context_length: int


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    """What the server was asked for.

    Attributes:
        step_tokens: Most tokens of one step.
        batch_requests: Most requests of one step.
        adapter_bytes: Size of the adapter pools; None: as many as fit beside the cache.
        max_adapter_rank: The largest rank that must fit; None: `USUAL_RANK`, where `adapter_bytes` is None, too.
        cache_bytes: Size of the cache of keys and values; None: what is left.
    """

    step_tokens: int = 512
    batch_requests: int = 64
    adapter_bytes: int | None = None
    max_adapter_rank: int | None = None
    cache_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class MemoryItem:
    """A line of the budget: what takes `nbytes`, and how the number comes about."""

    what: str
    nbytes: int
    how: str


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How one GPU's memory is spent.

    Attributes:
        room: Bytes that there are.
        items: What takes them.
        adapter_pages: Pages of the adapter pools.
        cache_tokens: Tokens that the cache holds, all requests together.
        context_length: Longest sequence that fits, at most the model's.
        missing: What is missing and what to change; "" where the server starts.
    """

    room: int
    items: tuple[MemoryItem, ...]
    adapter_pages: int
    cache_tokens: int
    context_length: int
    missing: str = ""

    @property
    def starts(self) -> bool:
        """Whether the server starts."""
        return not self.missing

    def table(self) -> str:
        """Returns the budget as lines of text, the sum last."""
        taken = sum(item.nbytes for item in self.items)
        rows = [(item.what, format_bytes(item.nbytes), item.how) for item in self.items]
        rows.append(("in all", format_bytes(taken), f"of {format_bytes(self.room)}"))
        name, size = (max(len(row[i]) for row in rows) for i in (0, 1))
        return "\n".join(f"{row[0]:<{name}}  {row[1]:>{size}}  {row[2]}".rstrip() for row in rows)


def pages_of(rank: int) -> int:
    """Returns the pages that an adapter of `rank` takes."""
    return -(-rank // PAGE_RANKS)


def format_bytes(nbytes: float) -> str:
    """Returns a size such as "13.5 GiB" or "84 MiB"."""
    return f"{nbytes / GIB:.1f} GiB" if nbytes >= GIB else f"{max(nbytes, 0) / (1 << 20):.0f} MiB"


def gpu_room(nominal_gib: float, gpu_model: str = "") -> int:
    """Returns the bytes of a GPU that programs can have.

    Args:
        nominal_gib: Its memory as a table of machines or a node's label has it, in GiB.
        gpu_model: Such as "NVIDIA A10G".
    """
    usable = nominal_gib * USABLE_SHARE
    # A part of a card (vGPU) is less than the whole of it anyway.
    known = [USABLE_GIB[word] for word in gpu_model.replace("-", " ").split() if word in USABLE_GIB]
    return int(min([usable, *known]) * GIB)


def preset_memory(preset: ModelPreset, gpus: int = 1) -> ModelMemory:
    """Returns what each of `gpus` GPUs that share a preset's model needs, estimated from its size.

    The page and the step are upper estimates: a preset has no sizes of layers.
    """
    itemsize = 4 if preset.dtype == "float32" else 2
    stored = preset.weights.size_gib * GIB
    weights = stored * SHARE_LEFT[preset.quantization]
    width = (stored / itemsize * _WIDTH_PER_LAYER / _PARAMETERS_PER_WIDTH) ** (1 / 3)
    layers = width / _WIDTH_PER_LAYER
    # The sum of K + N over the linear layers. One side of each is the width, which GPUs do not share; their other sides
    # are the parameters divided by it.
    sides = layers * _LINEAR_LAYERS * width + stored / itemsize / width / gpus
    if gpus == 1:  # ranks leave embedding and output head alone
        sides += 2 * (_VOCABULARY + width)
    whole = min(_VOCABULARY * width * itemsize, weights / 4) if gpus > 1 else 0.0  # the embedding is not cut
    return ModelMemory(
        weights=int((weights - whole) / gpus + whole),
        kv_per_token=-(-preset.kv_bytes_per_token // gpus),
        page=int(sides * PAGE_RANKS * itemsize * _PAGE_MARGIN),
        step_per_token=int(_STEP_VALUES * width * itemsize),
        logits_per_row=_LARGE_VOCABULARY * _LOGIT_BYTES,
        context_length=preset.context_length,
    )


def step_bytes(width: int, vocabulary: int, itemsize: int) -> tuple[int, int]:
    """Returns (bytes per token, bytes per row that gets a token) of a step of a model whose sizes are known."""
    return _STEP_VALUES * width * itemsize, vocabulary * _LOGIT_BYTES


def plan_memory(
    model: ModelMemory,
    room: int,
    options: MemoryOptions = MemoryOptions(),
    *,
    gpus: int = 1,
    beside: int | None = None,
) -> MemoryPlan:
    """Returns how the memory of one GPU is spent.

    The order is that of need: weights, what CUDA takes, the largest step, one adapter of the largest rank, one request
    of the full context. What is left goes to more adapters and more requests.

    Args:
        model: What the model needs on this GPU.
        room: Bytes that programs can have.
        options: What was asked for.
        gpus: GPUs that share the model.
        beside: Bytes that are taken beside the model, where they are known: for a CUDA context and the like.
    """
    if beside is None:
        beside = CONTEXT_BYTES + (GROUP_BYTES if gpus > 1 else 0)
    rank = options.max_adapter_rank or USUAL_RANK
    step = options.step_tokens * model.step_per_token
    logits = min(options.batch_requests, options.step_tokens) * model.logits_per_row
    fixed = [
        MemoryItem("weights", model.weights, f"this GPU's part of {gpus}" if gpus > 1 else ""),
        MemoryItem("driver", beside, "contexts, workspaces and compiled kernels"),
        MemoryItem("largest step", step + logits, f"{options.step_tokens} tokens (--step-tokens)"),
    ]
    left = room - sum(item.nbytes for item in fixed)
    pages = pages_of(rank)
    if options.adapter_bytes is not None:
        pages = options.adapter_bytes // model.page
    wanted = model.context_length * options.batch_requests
    enough = min(model.context_length, LEAST_CONTEXT)
    first = model.context_length * model.kv_per_token if options.cache_bytes is None else options.cache_bytes
    spare = left - pages * model.page - first
    if options.adapter_bytes is None and spare > 0:
        pages = max(pages, min(pages + int(spare * ADAPTER_SHARE) // model.page, MOST_PAGES))
    if options.cache_bytes is not None:
        tokens = min(options.cache_bytes // model.kv_per_token, wanted)
    else:
        tokens = min(max(left - pages * model.page, 0) // model.kv_per_token, wanted)
    plan = MemoryPlan(
        room=room,
        items=(
            *fixed,
            MemoryItem("adapters", pages * model.page, _pages_words(pages, model.page)),
            MemoryItem("keys and values", tokens * model.kv_per_token, f"{tokens} tokens"),
        ),
        adapter_pages=pages,
        cache_tokens=tokens,
        context_length=min(model.context_length, tokens),
    )
    return _judged(plan, model, options, enough, gpus)


def _pages_words(pages: int, page: int) -> str:
    return f"{pages} pages of {PAGE_RANKS} ranks, {format_bytes(page)} each (--adapter-memory)"


def _judged(plan: MemoryPlan, model: ModelMemory, options: MemoryOptions, enough: int, gpus: int) -> MemoryPlan:
    """Returns the plan with what is missing for it."""
    rank = options.max_adapter_rank
    least = enough * model.kv_per_token
    needed = sum(item.nbytes for item in plan.items)
    missing = ""
    if plan.adapter_pages < pages_of(rank or 1):
        missing = (
            f"--adapter-memory of {format_bytes(options.adapter_bytes or 0)} holds {plan.adapter_pages} pages of "
            f"{PAGE_RANKS} ranks, an adapter of rank {rank or 1} needs {pages_of(rank or 1)} of "
            f"{format_bytes(model.page)}: set it to {format_bytes(pages_of(rank or 1) * model.page)} or more"
        )
    elif options.cache_bytes is not None and needed > plan.room:
        missing = (
            f"{format_bytes(needed)} are needed, there are {format_bytes(plan.room)}: set --cache-gib lower by "
            f"{(needed - plan.room) / GIB:.2f}, or --adapter-memory"
        )
    elif options.cache_bytes is None and plan.cache_tokens < enough:
        short = needed - plan.cache_tokens * model.kv_per_token + least
        missing = (
            f"{format_bytes(short)} are needed with {enough} tokens of keys and values ({format_bytes(least)}), "
            f"there are {format_bytes(plan.room)}: {_advice(options, gpus)}"
        )
    elif plan.cache_tokens < 1:
        missing = "--cache-gib holds not one token: set it higher"
    if not missing:
        return plan
    return replace(plan, missing=missing)


def _advice(options: MemoryOptions, gpus: int) -> str:
    ways: Sequence[str] = [
        *(["set --adapter-memory lower"] if options.adapter_bytes is not None else []),
        *(["set --step-tokens lower"] if options.step_tokens > 512 else []),
        "take a GPU with more memory",
        "share the model among more GPUs" if gpus == 1 else "use more GPUs",
        "or weights of fewer bits",
    ]
    return ", ".join(ways)
