"""What is recorded of a machine, and the works that find its peaks."""

import json

import pytest

from recurrent_lm import lm
from recurrent_lm.studies.timing import peaks
from recurrent_lm.studies.timing.work import relative_error


def test_a_machine_is_described_as_json():
    about = lm.describe_machine()
    assert json.loads(json.dumps(about)) == about
    assert {"cpu", "cores", "gpu", "driver", "threads", "python", "torch", "platform", "command", "versions"} <= set(about)
    assert about["versions"]["numpy"] and about["versions"].keys() >= {"triton", "liger-kernel", "flashrnn"}


@pytest.mark.parametrize(
    ("work", "name"),
    [(peaks.copy(1), "copy"), (peaks.launch("cpu"), "launch")]
    + [(peaks.product(48, dtype), "product") for dtype in ("float32", "bfloat16", "float16")],
)
def test_what_finds_a_peak_is_right(work, name):
    assert relative_error(work.peers[name]().result(), work.reference(name)) <= work.allowed
    assert work.allowed < 0.05
