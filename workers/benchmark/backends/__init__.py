"""Runtimes in which dense and pruned take turns, behind one small interface."""
