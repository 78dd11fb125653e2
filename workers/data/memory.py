"""The bound on what a data set may take in memory, counted before it is taken."""

from workers.errors import DataError

MAX_BYTES = 8 * 2**30
"""Default bound of a data set, both splits together."""


class Allowance:
    """Bytes that are left for the next split."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.left = max_bytes

    def take(self, size: int, what: str) -> None:
        """Use `size` bytes; DataError when they are more than what is left."""
        if size > self.left:
            raise DataError(
                f"{what} would take {size / 2**20:,.0f} MiB of memory and {self.left / 2**20:,.0f} of the "
                f"allowed {self.max_bytes / 2**20:,.0f} MiB are left: set data.max_train_samples, or give "
                "smaller images or fewer samples"
            )
        self.left -= size
