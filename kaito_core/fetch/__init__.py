"""`kaito-fetch`, which puts an adapter's files into a folder: in a pod, and for `kaito up` on this machine.

Without torch and without Kubernetes: containers that fetch need kaito-core alone, and the plugins of the sources.
"""
