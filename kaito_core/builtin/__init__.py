"""kaito's own plugin: the built-in adapter sources, one a file, and the default choice of a node provider."""
