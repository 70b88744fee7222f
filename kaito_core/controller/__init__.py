"""Acts: everything that touches a cluster. What to do is decided in `reconcile/`, which this package only carries out.

kopf watches, `cache` remembers, `loop` says when a Workspace is looked at, `reconciler` looks at it, `execute` writes.
kopf is imported in `app` and `handlers`, the Kubernetes client in `cluster`; neither is imported anywhere else.
"""
