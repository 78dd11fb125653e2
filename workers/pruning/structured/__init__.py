"""Whole channels, neurons and heads: what hangs together, what goes, and the surgery."""
