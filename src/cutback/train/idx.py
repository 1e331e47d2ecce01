"""Reading idx files, the format of MNIST and its relatives, gzipped or not."""

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from cutback.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 0x08


def read_idx(path: Path, *, dimensions: int) -> Tensor:
    """Read an idx file of unsigned bytes.

    Args:
        path: the file; it is unpacked when its content is gzipped, whatever its name.
        dimensions: number of dimensions the file must have: 3 for pictures, 1 for labels.

    Returns:
        The content, uint8, in the shape that the file states.

    Raises:
        DataError: the file cannot be read, is no such idx file, or does not have the size that it states.
    """
    try:
        content = path.read_bytes()
        if content.startswith(GZIP_MAGIC):
            content = gzip.decompress(content)
    except EOFError as error:
        raise DataError(f"{path} is truncated: its gzip stream ends early; download it again") from error
    except (OSError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); check the file or download it again") from error
    magic = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    start = len(magic) + 4 * dimensions
    if not content.startswith(magic):
        raise DataError(
            f"{path} does not start with the idx magic number {magic.hex()} but with {content[:4].hex() or 'nothing'}; "
            "download it again"
        )
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(len(magic), start, 4)]
    actual = len(content) - start
    if actual != math.prod(shape):
        state = "is truncated" if actual < math.prod(shape) else "is too long"
        raise DataError(
            f"{path} {state}: its header states {math.prod(shape)} bytes, {max(actual, 0)} follow; download it again"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[start:].reshape(shape)
