"""Benchmarks of optimizers on tasks."""
