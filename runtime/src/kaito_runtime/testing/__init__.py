"""The public test kit of the runtime. Needs kaito-runtime[torch].

`models` writes tiny random models and adapters, `harness` runs a real engine behind plain calls, `truth` is the check
that a model package runs, and `fixtures` are what pytest finds by itself.
"""
