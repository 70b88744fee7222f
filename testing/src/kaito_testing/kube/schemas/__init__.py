"""What objects of the emulated API must look like: defaults, pruning, validation, CEL."""
