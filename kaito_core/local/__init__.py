"""`kaito up` and `kaito chat`: the pod that the operator would create, as processes on this machine, and a client."""
