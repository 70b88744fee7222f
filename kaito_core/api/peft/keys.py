"""Every key of PEFT's `LoraConfig` in one of three tables: part of the formula, without effect, or refused unless off.

docs/reference/adapter-checks.md is generated from the tables. The values are checked in `config`.
"""

from collections.abc import Mapping

__all__ = ["EXACT", "HARMLESS", "HARMLESS_INITS", "HEADS", "REFUSED", "TASKS"]

# Part of y = W x + s * scaling * B (A x), or checked against the model that is served.
EXACT: Mapping[str, str] = {
    "peft_type": "must be 'LORA'",
    "task_type": "one of PEFT's tasks that put no head of their own on the model",
    "r": "the rank, which the tensors must have",
    "lora_alpha": "part of the scaling, which may be 0 or negative, and 65504 at most",
    "use_rslora": "alpha / sqrt(r) instead of alpha / r",
    "rank_pattern": "ranks of single modules, matched as PEFT does",
    "alpha_pattern": "alphas of single modules, matched as PEFT does",
    "target_modules": "matched as PEFT does; there must be tensors for exactly these modules",
    "target_parameters": "stacked experts, routers and linear layers, matched as PEFT does",
    "exclude_modules": "matched as PEFT does",
    "layers_to_transform": "matched as PEFT does",
    "layers_pattern": "matched as PEFT does",
    "init_lora_weights": "any that leaves the base weights alone",
    "modules_to_save": "only modules whose saved weights are the base model's",
    "trainable_token_indices": "rows of the input embedding and the output head, as differences from the base model's",
    "ensure_weight_tying": "an output head that is tied to an adapted embedding is adapted with it",
}
HARMLESS: Mapping[str, str] = {
    "auto_mapping": "names the base model's class",
    "base_model_name_or_path": "names the base model; names, shapes and targets are checked against the one served",
    "revision": "names the base model's revision",
    "peft_version": "names the PEFT that wrote it",
    "inference_mode": "only matters in training",
    "lora_dropout": "only matters in training",
    "fan_in_fan_out": "says how W is stored, which the model itself knows; A and B are the same",
    "runtime_config": "says where PEFT computes",
    "megatron_core": "only matters with megatron_config",
    "loftq_config": "only matters with init_lora_weights='loftq'",
    "eva_config": "says how A was initialised",
    "corda_config": "only matters with init_lora_weights='corda'",
    "lora_ga_config": "only matters with init_lora_weights='lora_ga'",
    "qalora_group_size": "only matters with use_qalora",
}
REFUSED: Mapping[str, str] = {
    "bias": "trained biases cannot be weighted by a strength",
    "use_dora": "DoRA rescales the base weight by a learnt magnitude, which a strength cannot weigh",
    "lora_bias": "a bias on lora_B is not supported",
    "layer_replication": "it changes the layers of the base model",
    "alora_invocation_tokens": "an activated LoRA (aLoRA) applies to a part of the prompt only",
    "use_qalora": "QA-LoRA pools the input by groups",
    "arrow_config": "Arrow routes between adapters inside the layer",
    "velora_config": "VeLoRA is another kind of layer, which is not supported",
    "monteclora_config": "MonteCLoRA samples the adapter's weights",
    "use_bdlora": "BD-LoRA stores block-diagonal matrices",
    "kasa_config": "KaSA truncates the base weight and scales between A and B",
    "megatron_config": "it was trained in Megatron's layers, which may hold a part of each matrix",
    "_custom_modules": "custom LoRA layers may compute anything",
}
# These leave the base weights alone; the others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) train against a changed base.
HARMLESS_INITS = ("gaussian", "eva", "orthogonal", "mica")
TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")
HEADS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
