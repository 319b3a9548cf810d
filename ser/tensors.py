"""The checksum of tensors."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def checksum(tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> str:
    """MD5 of tensors on the CPU, with their names and shapes, and of notes."""
    digest = hashlib.md5(json.dumps(notes).encode(), usedforsecurity=False)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
