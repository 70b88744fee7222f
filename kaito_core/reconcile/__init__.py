"""Decides what to do for a Workspace; `controller/` does it. Pure functions: no I/O, no kopf, time is an argument.

`resolve`, `desired`, `difference` and `status` follow one another; `plan` is what comes out.
"""
