"""The commands about a cluster: run the operator, install and remove it, and see how a Workspace is doing."""
