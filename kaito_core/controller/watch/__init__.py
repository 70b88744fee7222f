"""What the API server tells: kopf's watches, the cache that they fill, and what a change is a reason to do."""
