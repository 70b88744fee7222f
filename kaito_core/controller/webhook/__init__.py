"""The admission webhook: its server, its certificate, its objects in the cluster and its verdict."""
