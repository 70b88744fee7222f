"""The server that runs inside the pod: an OpenAI-compatible API over one base model and many LoRA adapters."""
