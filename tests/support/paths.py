"""Where the source tree is, and what processes that tests start can import."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
SUPPORT = TESTS / "support"  # a folder a room
