"""What the emulated API checks and completes in objects: defaults, pruning, validation, CEL rules."""
