"""TensorRT: engines with and without sparse kernels, and the proof of which kernels ran."""
