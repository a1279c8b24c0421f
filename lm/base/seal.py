"""JSON objects that tell whether they are whole: the last entry is a digest of the others."""

import hashlib
import json
from typing import Any

KEY = "sha256"


def seal(content: dict[str, Any]) -> bytes:
    """The object as JSON with its digest."""
    return json.dumps(content | {KEY: _digest(content)}, indent=1).encode()


def unseal(raw: bytes) -> dict[str, Any]:
    """The inverse of ``seal``; an object without a digest is taken as it is, as older versions wrote it.

    Raises:
        ValueError: for what is no JSON object, and for one whose content is not what was sealed.
    """
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None
    if not isinstance(content, dict):
        raise ValueError("is no JSON object")
    digest = content.pop(KEY, None)
    if digest is not None and digest != _digest(content):
        raise ValueError("is not what was written")
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
