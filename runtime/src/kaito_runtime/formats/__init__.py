"""What the folder of an adapter says: read, checked, and refused where it could not be applied exactly."""
