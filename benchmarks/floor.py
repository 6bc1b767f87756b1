"""The floor: read every input byte into a reused buffer, write as many bytes as the output has."""

import os
import sys

BUFFER = 1 << 20


def main(output: str, nbytes: int, inputs: list[str]) -> None:
    buffer = bytearray(BUFFER)
    for path in inputs:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    with open(output, "wb", buffering=0) as file:
        for start in range(0, nbytes, BUFFER):
            file.write(memoryview(buffer)[: min(BUFFER, nbytes - start)])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
    os._exit(0)
