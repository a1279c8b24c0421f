"""What is recorded of a machine, and the works that find its peaks."""

import json

import pytest

from recurrent_lm.studies.timing import machine
from recurrent_lm.studies.timing.work import relative_error


def test_a_machine_is_described_as_json():
    about = machine.describe()
    assert json.loads(json.dumps(about)) == about
    assert {"cpu", "cores", "gpu", "driver", "threads", "python", "torch", "platform", "command", "versions", "sources"} <= set(
        about
    )
    assert about["versions"]["numpy"] and about["versions"].keys() >= {"triton", "liger-kernel", "flashrnn"}


def test_the_digest_of_sources_sees_every_change(tmp_path, monkeypatch):
    """One byte of one file, a file more, a file renamed: another program. A note beside it is none."""
    room = tmp_path / "kernels"
    room.mkdir()
    (tmp_path / "studies").mkdir()
    file = room / "a.py"
    file.write_text("x = 1")
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "studies" / "machine.py"))
    seen = [machine.sources()]
    (room / "notes.txt").write_text("nothing")
    (tmp_path / "outside.py").write_text("nothing")
    assert machine.sources() == seen[0]
    file.write_text("x = 2")
    seen.append(machine.sources())
    (room / "b.py").write_text("")
    seen.append(machine.sources())
    (room / "b.py").rename(room / "c.py")
    seen.append(machine.sources())
    assert len(set(seen)) == 4


@pytest.mark.parametrize(
    ("work", "name"),
    [(machine.copy(1), "copy"), (machine.launch("cpu"), "launch")]
    + [(machine.product(48, dtype), "product") for dtype in ("float32", "bfloat16", "float16")],
)
def test_what_finds_a_peak_is_right(work, name):
    assert relative_error(work.peers[name]().result(), work.reference(name)) <= work.allowed
    assert work.allowed < 0.05
