"""Pickled state dicts into safetensors, on a user's machine: nothing that a file names is run."""
