"""Inner problems, task families and data."""
