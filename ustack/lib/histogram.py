"""A histogram by powers of two, as tracing tools print them: cheap to fill, good for latencies."""

from __future__ import annotations


class Log2Histogram:
    """Counts of whole numbers: bucket 0 is 0 and 1, bucket n is 2**n to 2**(n+1) - 1."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets: list[int] = []
        """Up to the largest that was seen."""
        self.total = 0

    def add(self, value: int) -> None:
        """Count ``value``; less than nothing is nothing."""
        value = max(value, 0)
        bucket = max(value.bit_length() - 1, 0)
        while len(self.buckets) <= bucket:
            self.buckets.append(0)
        self.buckets[bucket] += 1
        self.total += value
