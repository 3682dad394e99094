"""Published results, made again: every row with its criterion."""
