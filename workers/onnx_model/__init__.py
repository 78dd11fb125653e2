"""ONNX files as models: layers that can be pruned in PyTorch, run by ONNX Runtime."""
