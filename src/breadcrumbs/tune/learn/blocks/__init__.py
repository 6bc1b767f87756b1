"""Block by block: one block of each model in memory, fitted to what the experts' blocks do.

learning    the driver: rows captured before the first block, then one block after the other
streamed    the module of the suite, of which one block has weights at a time
block       what a kind sees of the block that it fits
kinds       what can be learned, by name; a file each
written     the checkpoint that comes out, and going on with one
"""
