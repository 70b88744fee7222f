"""`kaito up`: runs the pod template that the operator would create, as processes on this machine."""
