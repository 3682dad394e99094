"""Saving, resuming and pretrained weights."""
