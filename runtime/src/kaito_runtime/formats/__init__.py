"""The folder of an adapter: read, checked, and refused if it could not be applied exactly."""
