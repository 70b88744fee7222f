"""What kaito brings itself, registered through the same hooks as any plugin: adapter sources and the default choice of
a node provider. One file per source.
"""
