"""The old path of kaito-karpenter; importing it explains the move. Delete with version 0.2."""

raise ImportError(
    "kaito_core.api.karpenter has become the distribution kaito-karpenter: pip install kaito-karpenter,"
    " and import kaito_karpenter instead",
    name=__name__,
)
