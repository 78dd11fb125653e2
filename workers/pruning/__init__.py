"""Which weights go, exactly."""
