"""The whole service on a laptop, with embedded servers."""
