"""Base models: loading, recipes, tensor parallel plans, and the memory of the machine."""
