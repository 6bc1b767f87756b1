"""Numbers that all kernels agree on, and their callers too."""

from __future__ import annotations

#: The limit of draws that keeps every entry.
ALL = 2**32 - 1

#: The kinds of an election: what the step of an entry is of the task vectors of its elected sign.
MEAN, SUM, LARGEST = 0, 1, 2
#: No election: the sum of all.
TOTAL = 3

#: Models that an election with weights takes for a mean: their subsets are looked up.
SUBSETS = 10

#: Entries whose inner products are added one after the other, and numbers that are added at once.
PART = 1 << 14
LANES = 256

#: A gap of so many entries and no kept one after them, for gaps of 8 and of 16 bits.
LONG = {1: 255, 2: 65535}
