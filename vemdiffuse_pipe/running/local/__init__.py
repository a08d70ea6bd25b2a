"""A run in this process alone, as part I of N."""
