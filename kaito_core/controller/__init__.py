"""The operator: everything that talks to a cluster. `reconcile/` decides what to do; this package does it.

`watch/` fills a cache from kopf's watches, `work/` runs a pass for each Workspace that a change affects, `webhook/`
checks Workspaces on admission, `install/` prints the manifests of the operator itself. kopf is imported in `app` and
`watch/engine` alone, the Kubernetes client in `cluster` alone; `install/` needs neither.
"""
