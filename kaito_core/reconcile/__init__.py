"""Decides. Pure functions only: no I/O, no kopf, and no clock but an argument. `controller/` acts."""
