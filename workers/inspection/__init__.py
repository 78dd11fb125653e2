"""What a model file offers to sparse kernels, without a job."""
