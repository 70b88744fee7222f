"""Existing GPU nodes for kaito. `fit` decides which nodes can be used, `provider` reads them from the cluster."""
