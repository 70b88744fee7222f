"""The table of request fields: every field of OpenAI, vLLM, SGLang, TGI, LoRAX and llama.cpp for completions and chat.

Data only. `translate` applies it to bodies, `requests` has the types of the fields that are honoured, and the page
`docs/reference/request-fields.md` is written from it.

Source: the request types of the PyPI packages openai 3.54, sglang 0.5.9, text-generation 0.7 and lorax-client 0.6.3, of
vLLM's `entrypoints/openai/*/protocol.py` and of llama.cpp's `tools/server/README.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

__all__ = ["CHAT", "FIELDS", "TEXT", "Does", "Endpoint", "FieldRule", "rules_of"]

Endpoint = Literal["chat", "text"]
CHAT: Endpoint = "chat"
TEXT: Endpoint = "text"


class Does(StrEnum):
    """What a field does here."""

    HONOURED = "honoured"
    SPELLING = "another spelling"
    HARMLESS = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class FieldRule:
    """One field of a request body.

    Attributes:
        name: The field.
        does: What it does here.
        meaning: What it does; of a spelling, the field that it stands for; of a refused one, what to use instead.
        neutral: Values besides null that change nothing, and are accepted of a refused field.
        servers: Other servers that have it: o(penAI), v(LLM), s(GLang), t(GI), l(oRAX), c (llama.cpp).
        only: The endpoint that has it; None for both.
        differs: How OpenAI or vLLM differ where they have it.
    """

    name: str
    does: Does
    meaning: str
    servers: str = ""
    neutral: tuple[object, ...] = ()
    only: Endpoint | None = None
    differs: str = ""


def _honoured(name: str, meaning: str, servers: str, only: Endpoint | None = None, differs: str = "") -> FieldRule:
    return FieldRule(name, Does.HONOURED, meaning, servers, (), only, differs)


def _spelling(name: str, of: str, servers: str, neutral: tuple[object, ...] = (), differs: str = "") -> FieldRule:
    return FieldRule(name, Does.SPELLING, of, servers, neutral, None, differs)


def _harmless(name: str, why: str, servers: str) -> FieldRule:
    return FieldRule(name, Does.HARMLESS, why, servers)


def _refused(
    name: str, instead: str, servers: str, *neutral: object, only: Endpoint | None = None, differs: str = ""
) -> FieldRule:
    return FieldRule(name, Does.REFUSED, instead, servers, neutral, only, differs)


_NO_SUCH_SAMPLER = "use temperature, top_k, top_p or min_p"
_LABEL = "a label for the provider's own records"
_PLACEMENT = "says where or when to compute, not what"
_KNOBS = "chooses among ways to compute the same"

FIELDS: tuple[FieldRule, ...] = (
    # What is asked.
    _honoured("model", "the model id; it must be given", "ovstlc", differs="vLLM and llama.cpp take one without it"),
    _honoured("messages", "the conversation, as text", "ovstlc", CHAT),
    _honoured("prompt", "one text or list of tokens, or up to 1024 of either", "ovsc", TEXT),
    _honoured("adapters", "LoRA adapters by name and strength, instead of those of the model id", ""),
    _spelling("adapter_id", "adapters", "tl", differs='"__base_model__" is the base model, as in LoRAX'),
    _spelling("lora_path", "adapters", "s"),
    _spelling("lora_adapter", "adapters", ""),
    _spelling("lora_request", "adapters", "v", differs="its lora_name counts; vLLM has it in Python only"),
    _honoured("lora", "adapters by their ids in GET /lora-adapters, each with its scale", "c"),
    _refused("adapter_source", "adapters are loaded by the server: name one in adapters", "l", "local"),
    _refused("merged_adapters", "name them in adapters, each with its strength; they are summed", "l"),
    _refused("api_token", "adapters are loaded by the server, with its own credentials", "l"),
    _refused("suffix", "put the text around the gap into the prompt, as the model was trained", "ovsc", "", only=TEXT),
    _refused("input_prefix", "put the text around the gap into the prompt, as the model was trained", "c"),
    _refused("input_suffix", "put the text around the gap into the prompt, as the model was trained", "c"),
    _refused("prompt_embeds", "send prompt as text or tokens", "v", only=TEXT),
    _refused("input_ids", "send tokens as the prompt of /v1/completions", "s", only=CHAT),
    _refused("documents", "put them into the messages", "v", [], only=CHAT),
    _refused("audio", "only text is served", "o", only=CHAT),
    _refused("modalities", "only text is served", "o", ["text"], only=CHAT),
    _refused("web_search_options", "nothing is searched; put the findings into the messages", "o", only=CHAT),
    _refused("prediction", "leave it out: answers are not predicted", "o", only=CHAT),
    _refused("moderation", "nothing is moderated here", "o", only=CHAT),
    _refused("guideline", "put it into a system message", "t", ""),
    _refused("task", "put the instruction into the messages", "s", only=CHAT),
    _refused("images_config", "only text is served", "s"),
    _refused("mm_processor_kwargs", "only text is served", "v", {}, only=CHAT),
    _refused("media_io_kwargs", "only text is served", "v", {}, only=CHAT),
    _refused("max_dynamic_patch", "only text is served", "s", only=CHAT),
    _refused("min_dynamic_patch", "only text is served", "s", only=CHAT),
    _refused("use_audio_in_video", "only text is served", "s", False, only=CHAT),
    # How it becomes tokens.
    _honoured("chat_template_kwargs", "variables of the chat template", "vsc", CHAT),
    _honoured("add_generation_prompt", "whether the prompt ends where the assistant's turn begins", "vc", CHAT),
    _honoured("continue_final_message", "the answer goes on with the last message", "vs", CHAT),
    _honoured("reasoning_effort", "the variable of that name of the chat template", "ovsc", CHAT),
    _honoured("add_special_tokens", "whether special tokens, such as a BOS, are put in front", "v"),
    _honoured("truncate_prompt_tokens", "keeps so many tokens of the prompt; -1 keeps what fits", "v"),
    _honoured("truncation_side", '"left" cuts the beginning of the prompt, "right" its end', "v"),
    _spelling("truncate", "truncate_prompt_tokens", "tl"),
    _refused("chat_template", "start the server with --chat-template", "v", only=CHAT),
    _refused("tool_prompt", "use tools, and a system message", "t", only=CHAT),
    _refused("reasoning_format", "leave it out", "c", "auto", "none", only=CHAT),
    _refused("thinking_token_budget", "use max_completion_tokens", "v", -1),
    _refused("thinking_budget_tokens", "use max_completion_tokens", "c", -1, only=CHAT),
    _refused("verbosity", "ask for it in a message", "o", "medium", only=CHAT),
    # Tools.
    _honoured("tools", "functions that the model may call", "ovstc", CHAT),
    _honoured("functions", "must be empty: use tools", "o", CHAT),
    _honoured("tool_choice", "auto, none, required, or the one function to call", "ovstc", CHAT),
    _honoured("parallel_tool_calls", "false ends the answer after one call", "ovsc", CHAT),
    FieldRule("function_call", Does.HARMLESS, "without functions, nothing can be chosen", "o", only=CHAT),
    # How long the answer is, and where it ends.
    _honoured("max_tokens", "most tokens of the answer; of completions 16, and 0 for the prompt alone", "ovstlc"),
    _honoured("max_completion_tokens", "the same; it counts where both are given", "ovsc", CHAT),
    _spelling("max_new_tokens", "max_tokens", "tl"),
    _spelling("n_predict", "max_tokens", "c", (-1,), differs="-1 is no limit"),
    _honoured("min_tokens", "fewest tokens of the answer: no end and no stop string counts before", "vs"),
    _spelling("min_new_tokens", "min_tokens", "s"),
    _honoured("stop", "up to 16 texts that end the answer; texts of special tokens too", "ovstlc"),
    _honoured("stop_token_ids", "tokens that end the answer", "vs"),
    _honoured("include_stop_str_in_output", "what ended the answer is part of it", "v"),
    _spelling("no_stop_trim", "include_stop_str_in_output", "s"),
    _honoured("ignore_eos", "goes on after an end-of-sequence token", "vsc"),
    _spelling("ignore_eos_token", "ignore_eos", "l"),
    _refused("stop_regex", "use stop, or structured_outputs.regex", "s"),
    _refused("repetition_detection", "use repetition_penalty or max_tokens", "v"),
    _refused("t_max_predict_ms", "use max_tokens", "c", 0),
    # How tokens are chosen.
    _honoured("temperature", "below 1e-5 the most likely token is taken, as for 0", "ovstlc"),
    _honoured("top_p", "keeps the most likely tokens that make up this probability", "ovstlc"),
    _honoured("top_k", "keeps so many of the most likely tokens; 0 and -1 keep all", "vslc"),
    _honoured("min_p", "drops tokens less likely than this share of the most likely one", "vsc"),
    _honoured("seed", "makes the answer reproducible, alone and beside other requests", "ovstlc"),
    _honoured("presence_penalty", "lowers tokens that the answer has already", "ovstc"),
    _honoured("frequency_penalty", "lowers them by each time they came", "ovstc"),
    _honoured("repetition_penalty", "divides or multiplies logits of tokens of prompt and answer", "vstl"),
    _honoured("logit_bias", "added to logits, by token id", "ovsc", differs="llama.cpp also takes a list of pairs"),
    _honoured(
        "bad_words",
        "texts that the answer never has, however they are cut into tokens",
        "v",
        differs="vLLM bans the tokens of one spelling",
    ),
    _honoured("n", "choices of each prompt, up to 16", "ovsl"),
    _spelling("n_cmpl", "n", "c"),
    _honoured("best_of", "computes so many choices and returns the n most likely; all count in usage", "ostl", TEXT),
    _refused("best_of", "use n, or /v1/completions", "", 1, only=CHAT),
    _refused("do_sample", "use temperature 0 for the most likely tokens", "tl", True),
    _refused("use_beam_search", "use best_of", "v", False),
    _refused("length_penalty", "use max_tokens", "v", 1.0),
    _refused("allowed_token_ids", "use structured_outputs.choice, or logit_bias", "v"),
    _refused("repeat_penalty", "use repetition_penalty, which looks at the whole text", "c", 1.0),
    _harmless("repeat_last_n", "only repeat_penalty uses it", "c"),
    _refused("typical_p", _NO_SUCH_SAMPLER, "tlc", 1.0),
    _refused("watermark", "answers are not marked", "tl", False),
    _refused("watermarking", "answers are not marked", "v", False),
    _refused("mirostat", _NO_SUCH_SAMPLER, "c", 0),
    _harmless("mirostat_tau", "only mirostat uses it", "c"),
    _harmless("mirostat_eta", "only mirostat uses it", "c"),
    _refused("dynatemp_range", _NO_SUCH_SAMPLER, "c", 0.0),
    _harmless("dynatemp_exponent", "only dynatemp_range uses it", "c"),
    _refused("xtc_probability", _NO_SUCH_SAMPLER, "c", 0.0),
    _harmless("xtc_threshold", "only xtc_probability uses it", "c"),
    _refused("dry_multiplier", "use repetition_penalty or frequency_penalty", "c", 0.0),
    _harmless("dry_base", "only dry_multiplier uses it", "c"),
    _harmless("dry_allowed_length", "only dry_multiplier uses it", "c"),
    _harmless("dry_penalty_last_n", "only dry_multiplier uses it", "c"),
    _harmless("dry_sequence_breakers", "only dry_multiplier uses it", "c"),
    _refused("top_n_sigma", _NO_SUCH_SAMPLER, "c", -1, -1.0, 0, 0.0),
    _refused("adaptive_target", _NO_SUCH_SAMPLER, "c", -1, -1.0),
    _harmless("adaptive_decay", "only adaptive_target uses it", "c"),
    _refused("samplers", "the order is temperature, top_k, top_p, min_p", "c"),
    _refused("min_keep", _NO_SUCH_SAMPLER, "c", 0),
    _refused("custom_logit_processor", "use logit_bias, bad_words or structured_outputs", "s"),
    _refused("custom_params", "leave it out", "s"),
    _refused("vllm_xargs", "leave it out", "v", {}),
    # What form the answer has.
    _honoured(
        "response_format",
        "any text, JSON, or JSON by a schema, which is always enforced",
        "ovstlc",
        differs="objects are closed unless the schema opens them, or strict is false",
    ),
    _honoured("structured_outputs", "one of json, json_object, regex, choice and grammar (Lark or GBNF)", "v"),
    _spelling("guided_json", "structured_outputs.json", "v"),
    _spelling("guided_regex", "structured_outputs.regex", "v"),
    _spelling("guided_choice", "structured_outputs.choice", "v"),
    _spelling("guided_grammar", "structured_outputs.grammar", "v"),
    _spelling("regex", "structured_outputs.regex", "s"),
    _spelling("ebnf", "structured_outputs.grammar", "s"),
    _spelling("json_schema", "structured_outputs.json", "sc"),
    _spelling("grammar", "structured_outputs.grammar", "tc", ("",), "TGI's {type, value} means json or regex"),
    _harmless("guided_decoding_backend", _KNOBS, "v"),
    _refused("guided_whitespace_pattern", "leave it out: JSON is written on one line", "v"),
    _refused("grammar_lazy", "leave it out: a grammar holds from the first token", "c", False),
    # What is returned.
    _honoured("stream", "server-sent events", "ovstlc"),
    _honoured("stream_options", "include_usage adds the token counts, continuous_usage_stats to every event", "ovst"),
    _honoured("logprobs", "log-probabilities of the answer's tokens, of up to 20 alternatives", "ovstc"),
    _honoured("top_logprobs", "number of alternatives, with logprobs", "ovstc", CHAT),
    _honoured(
        "echo",
        "the prompt in front of the answer; with logprobs, its log-probabilities too",
        "ovs",
        TEXT,
        differs="not in OpenAI's present models",
    ),
    _honoured("prompt_logprobs", "log-probabilities of the prompt's tokens, of up to 20 alternatives", "v"),
    _honoured("skip_special_tokens", "false keeps the text of special tokens in the answer", "vs"),
    _refused("spaces_between_special_tokens", "leave it out: special tokens are written as they are", "v", True),
    FieldRule("echo", Does.REFUSED, "put the last message together yourself", "v", (False,), CHAT),
    _refused("return_tokens_as_token_ids", "use /tokenize", "v", False),
    _refused("return_token_ids", "use /tokenize", "vs", False),
    _refused("return_prompt_token_ids", "use /tokenize", "s", False),
    _refused("return_token_offsets", "use logprobs of /v1/completions, which have text_offset", "v", False),
    _refused("return_prompt_text", "use echo of /v1/completions", "v", False, only=CHAT),
    _refused("return_tokens", "use /tokenize", "c", False),
    _refused("return_full_text", "use echo", "tl", False),
    _refused("return_hidden_states", "hidden states are not returned", "s", False),
    _refused("return_routed_experts", "experts are not returned", "s", False),
    _harmless("routed_experts_start_len", "only return_routed_experts uses it", "s"),
    _harmless("routed_experts_prompt_start", "experts are not returned", "v"),
    _refused("return_meta_info", "use usage and logprobs", "s", False),
    _refused("return_cached_tokens_details", "usage.prompt_tokens_details has them", "s", False),
    _refused("return_k_alternatives", "use logprobs", "l", 0),
    _refused("details", "use logprobs", "tl", False),
    _refused("decoder_input_details", "use prompt_logprobs", "tl", False),
    _refused("top_n_tokens", "use top_logprobs or logprobs", "t", 0),
    _refused("n_probs", "use logprobs, and top_logprobs of a conversation", "c", 0),
    _refused("post_sampling_probs", "use logprobs, which are those of the model itself", "c", False),
    _refused("logprob_token_ids", "use logprobs", "v"),
    _refused("response_fields", "every field is returned", "c", []),
    _harmless("return_mm_kwargs", "only text is served", "v"),
    _harmless("return_progress", "an answer has none of it", "c"),
    _harmless("timings_per_token", "an answer has none of it", "c"),
    _harmless("separate_reasoning", "reasoning is separate where the model's template marks it", "s"),
    _harmless("stream_reasoning", "reasoning is streamed where the model's template marks it", "s"),
    _harmless("include_reasoning", "reasoning is returned where the model's template marks it", "v"),
    _harmless("parse_tool_calls", "calls are parsed where tools are given", "c"),
    # What changes nothing about the answer.
    _harmless("user", _LABEL, "ovs"),
    _harmless("metadata", _LABEL, "o"),
    _harmless("store", "nothing is stored", "o"),
    _harmless("safety_identifier", _LABEL, "o"),
    _harmless("prompt_cache_key", _KNOBS, "o"),
    _harmless("prompt_cache_options", _KNOBS, "o"),
    _harmless("prompt_cache_retention", _KNOBS, "o"),
    _harmless("service_tier", _PLACEMENT, "o"),
    _harmless("priority", _PLACEMENT, "vs"),
    _harmless("request_id", "the header x-request-id names a request", "v"),
    _harmless("rid", "the header x-request-id names a request", "s"),
    _harmless("session_id", _LABEL, "vs"),
    _harmless("session_params", _LABEL, "s"),
    _harmless("extra_key", _LABEL, "s"),
    _harmless("custom_labels", _LABEL, "s"),
    _harmless("cache_salt", "prefixes are shared only where the server is told to, and never change an answer", "vs"),
    _harmless("kv_transfer_params", _PLACEMENT, "v"),
    _harmless("ec_transfer_params", _PLACEMENT, "v"),
    _harmless("bootstrap_host", _PLACEMENT, "s"),
    _harmless("bootstrap_port", _PLACEMENT, "s"),
    _harmless("bootstrap_room", _PLACEMENT, "s"),
    _harmless("routed_dp_rank", _PLACEMENT, "s"),
    _harmless("disagg_prefill_dp_rank", _PLACEMENT, "s"),
    _harmless("data_parallel_rank", _PLACEMENT, "s"),
    _harmless("ngram_corpus_id", _KNOBS, "s"),
    _harmless("stream_interval", "every token is sent at once", "v"),
    _harmless("id_slot", _PLACEMENT, "c"),
    _harmless("cache_prompt", _KNOBS, "c"),
    _harmless("n_keep", "a prompt that does not fit is refused, not shifted", "c"),
    _harmless("n_indent", "code is not indented for an editor", "c"),
)


def rules_of(endpoint: Endpoint) -> Mapping[str, FieldRule]:
    """Returns the rules of an endpoint by the field's name."""
    return {rule.name: rule for rule in FIELDS if rule.only in (None, endpoint)}
