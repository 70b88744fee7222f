"""Which adapters are served, and their life: fetched, loaded, replaced, removed. Files are read in `formats`."""
