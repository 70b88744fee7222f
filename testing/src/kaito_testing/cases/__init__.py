"""Tables of documents that everything which validates Workspaces is held to. Data."""
