"""The adapters that are served: fetching, loading, replacing and unloading them. `formats` reads their files."""
