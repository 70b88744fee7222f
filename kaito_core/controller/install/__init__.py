"""What `kaito install` prints: pure functions from settings to manifests. Nothing is applied here."""
