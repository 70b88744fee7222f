"""LoRA adapters of one model: the layers that apply them, the bank that holds them, the routing between both."""

from kaito_runtime.lora.bank import Bank
from kaito_runtime.lora.inject import LoraModel, inject_lora
from kaito_runtime.lora.records import AdapterVersion, ResidentAdapter
from kaito_runtime.lora.routing import Routing

__all__ = ["AdapterVersion", "Bank", "LoraModel", "ResidentAdapter", "Routing", "Span", "inject_lora"]
