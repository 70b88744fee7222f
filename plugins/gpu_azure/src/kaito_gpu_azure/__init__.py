"""GPU nodes on Azure for kaito. `skus` are the machines, `nodeclaims` what is asked of Karpenter, `progress` what it
answers, `provider` the only part that talks to a cluster.
"""
