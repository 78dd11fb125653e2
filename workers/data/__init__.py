"""From a data folder to tensors."""
