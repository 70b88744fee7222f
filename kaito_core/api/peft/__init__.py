"""What a PEFT LoRA folder says, without torch: the configuration, the tensors' header, and which modules are meant."""
