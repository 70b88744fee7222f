"""How a server may quantise weights while it loads them, and how much of their size is left."""

from typing import Literal

__all__ = ["AS_STORED", "QUANTIZATIONS", "SHARE_LEFT", "Quantization"]

Quantization = Literal["auto", "bitsandbytes-4bit", "bitsandbytes-8bit"]
#: As the files have them, quantised or not.
AS_STORED: Quantization = "auto"
QUANTIZATIONS: tuple[Quantization, ...] = ("auto", "bitsandbytes-4bit", "bitsandbytes-8bit")
#: Of 16-bit weights: the linear layers' 4 or 8 bits with their scales, and the embedding, which stays as it is.
SHARE_LEFT: dict[Quantization, float] = {"auto": 1.0, "bitsandbytes-4bit": 0.4, "bitsandbytes-8bit": 0.6}
