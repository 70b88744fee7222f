"""Tells plugins that were written against the old path where it went. Delete with version 0.2."""

raise ImportError(
    "kaito_core.testing has become the distribution kaito-testing: pip install kaito-testing,"
    " and import kaito_testing instead",
    name=__name__,
)
