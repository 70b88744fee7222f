"""The nodes of a Workspace: how many of which size, what a provider is asked for, and which GPUs are taken."""
