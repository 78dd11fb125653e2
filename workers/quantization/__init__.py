"""Smaller numbers after pruning: INT8 in the ONNX file, or few values in the weights."""
