"""What `learned-opt speed` measures: each beside its floor, in the same run."""
