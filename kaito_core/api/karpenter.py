"""Tells plugins that were written against the old path where it went. Delete with version 0.2."""

raise ImportError(
    "kaito_core.api.karpenter has become the distribution kaito-karpenter: pip install kaito-karpenter,"
    " and import kaito_karpenter instead",
    name=__name__,
)
