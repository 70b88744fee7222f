"""kopf's watches, the cache that they fill, and which Workspaces a change affects."""
