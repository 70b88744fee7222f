"""The public test kit: an emulated Kubernetes API, fixtures and conformance suites for plugin authors.

Nothing is imported here, since pytest loads the fixtures' module in every run: import `kaito_testing.world.cluster`
and its neighbours by name.
"""
