"""The admission webhook: its server, its certificate, its objects on the cluster and its decision."""
