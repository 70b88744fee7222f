"""The test kit of kaito: an emulated Kubernetes API, fixtures and conformance suites for authors of plugins.

This file imports nothing, since pytest loads `kaito_testing.fixtures` in every run. Import what you use from its own
module, such as `kaito_testing.world.cluster`.
"""
