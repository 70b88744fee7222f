"""Tables of documents that all validation of Workspaces is tested with."""
