"""The public test kit of the runtime. Needs kaito-runtime[torch].

`models` writes tiny random models and adapters, `harness` runs a real engine behind plain function calls, `truth` has
the check that a model package runs, and pytest finds `fixtures` by itself.
"""
