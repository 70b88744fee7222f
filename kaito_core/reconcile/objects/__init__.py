"""The Kubernetes objects of a Workspace as manifests, and the comparison with those in the cluster."""
