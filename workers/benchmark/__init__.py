"""Dense against pruned, measured in pairs."""
