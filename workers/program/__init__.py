"""`torch.export` archives: read without torch's loader, built as a module, and written."""
