"""Prepared GPU nodes for kaito: finds nodes, creates none. `fit` decides, `provider` reads the cluster."""
