"""Falcon's forward pass through transformers' attention interface, with the same parameters and module names.

transformers' own Falcon computes attention inline, and drops the keyword arguments that continuous batching passes to
the attention. These subclasses have no state, so that a loaded model is converted by changing the classes of its
modules.

Source: "The Falcon Series of Open Language Models", https://arxiv.org/abs/2311.16867; modeling_falcon of transformers,
which the tests compare with.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.falcon.modeling_falcon import (
    FalconAttention,
    FalconDecoderLayer,
    FalconForCausalLM,
    FalconModel,
    apply_rotary_pos_emb,
)
from transformers.models.llama.modeling_llama import eager_attention_forward

__all__ = [
    "InterfaceAttention",
    "InterfaceDecoderLayer",
    "InterfaceFalconForCausalLM",
    "InterfaceFalconModel",
    "kv_heads",
]


def kv_heads(config: Any) -> int:
    """Returns the number of key-value heads. `num_kv_heads` of a FalconConfig is for the new architecture only."""
    if config.new_decoder_architecture:
        return int(config.num_kv_heads)
    return 1 if config.multi_query else int(config.num_attention_heads)


class InterfaceAttention(FalconAttention):  # type: ignore[misc]
    """Attention. Rows of the fused projection, per key-value head: the queries, then the key, then the value."""

    @property
    def num_key_value_groups(self) -> int:
        """Query heads per key-value head; the attention interface reads it."""
        return int(self.num_heads) // kv_heads(self.config)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: tuple[Tensor, Tensor],
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """Returns the projected attention output.

        Shapes:
            hidden_states and result: [B, S, H]. In continuous batches B is 1, and S is the tokens of all requests.
        """
        shape = hidden_states.shape[:-1]
        fused = self.query_key_value(hidden_states)
        fused = fused.view(*shape, -1, self.num_key_value_groups + 2, self.head_dim)
        query = fused[..., :-2, :].flatten(2, 3).transpose(1, 2)
        key, value = fused[..., -2, :].transpose(1, 2), fused[..., -1, :].transpose(1, 2)
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        output, _ = attend(self, query, key, value, attention_mask, scaling=self.inv_norm_factor, **kwargs)
        result: Tensor = self.dense(output.reshape(*shape, -1))
        return result


class InterfaceDecoderLayer(FalconDecoderLayer):  # type: ignore[misc]
    """One layer, with attention and MLP in parallel (7B, 40B, 180B) or in sequence (the RW models)."""

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Returns the hidden states after the layer, [B, S, H]. `kwargs` are passed to the attention."""
        config = self.config
        if config.new_decoder_architecture and config.num_ln_in_parallel_attn == 2:
            normed, mlp_input = self.ln_attn(hidden_states), self.ln_mlp(hidden_states)
        else:
            normed = mlp_input = self.input_layernorm(hidden_states)
        attended = self.self_attention(normed, **kwargs)
        if config.new_decoder_architecture or config.parallel_attn:
            # Added in transformers' order, so that results are equal to the last bit.
            both: Tensor = hidden_states + (self.mlp(mlp_input) + attended)
            return both
        residual = hidden_states + attended
        after: Tensor = residual + self.mlp(self.post_attention_layernorm(residual))
        return after


class InterfaceFalconModel(FalconModel):  # type: ignore[misc]
    """The decoder. It passes other keyword arguments to the attention."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Returns the last hidden states.

        Raises:
            ValueError: Not exactly one of input_ids and inputs_embeds is given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds must be given")
        hidden_states: Tensor = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if past_key_values is None and (self.config.use_cache if use_cache is None else use_cache):
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(hidden_states.shape[1], device=hidden_states.device).unsqueeze(0) + seen
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        rotary = self.rotary_emb(hidden_states, position_ids=position_ids)
        for layer in self.h:
            hidden_states = layer(
                hidden_states,
                attention_mask=mask,
                position_embeddings=rotary,
                past_key_values=past_key_values,
                position_ids=position_ids,
                **kwargs,
            )
        return BaseModelOutputWithPast(last_hidden_state=self.ln_f(hidden_states), past_key_values=past_key_values)


class InterfaceFalconForCausalLM(FalconForCausalLM):  # type: ignore[misc]
    """The decoder with its output head."""

    def forward(self, input_ids: Tensor | None = None, logits_to_keep: int | Tensor = 0, **kwargs: Any) -> Any:
        """Returns logits, [B, S, V], of all positions, or of those in `logits_to_keep`: the last n, or indices."""
        outputs = self.transformer(input_ids, **kwargs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept, :])
        return CausalLMOutputWithPast(logits=logits, past_key_values=outputs.past_key_values)
