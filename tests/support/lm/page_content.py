"""What a model's page holds, read from its text without the code that wrote it."""

import base64
import gzip
import json
import math
import re
import struct

import torch


def read(html):
    """(what the page is told, its weights' bytes)."""
    told, weights = (re.search(f'<script [^>]*id="{name}">(.+?)</script>', html, re.DOTALL) for name in ("told", "weights"))
    return json.loads(told[1]), gzip.decompress(base64.b64decode(weights[1]))


def decoded(told, data):
    """Each tensor's values, number by number with struct."""
    arrays, at = {}, 0
    for tensor in told["tensors"]:
        count, rows = math.prod(tensor["shape"]), tensor["shape"][0]
        if tensor["kind"] == "int8":
            scales = struct.unpack_from(f"<{rows}f", data, at)
            codes = struct.unpack_from(f"<{count}b", data, at + 4 * rows)
            values = [code * scales[i * rows // count] for i, code in enumerate(codes)]
            at += 4 * rows + count
        else:
            low, high = data[at : at + count], data[at + count : at + 2 * count]
            both = bytes(byte for pair in zip(low, high, strict=True) for byte in pair)
            values = [code * tensor["scale"] for code in struct.unpack(f"<{count}e", both)]
            at += 2 * count
        arrays[tensor["name"]] = torch.tensor(values, dtype=torch.float64).float().reshape(tensor["shape"])
    assert at == len(data)
    return arrays
