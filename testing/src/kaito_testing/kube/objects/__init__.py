"""The objects of the emulated API: the store, and what writing and deleting them does."""
