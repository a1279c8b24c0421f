"""Two trainings that are to be the same one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from recurrent_lm.lm.runs import checkpoint

Log = Callable[[Path], list[dict[str, Any]]]


def equal_runs(run: Path, expected: Path, read_log: Log) -> None:
    assert (run / "steps.jsonl").read_bytes() == (expected / "steps.jsonl").read_bytes()
    timings = ("seconds", "tokens_per_second")
    a, b = ([{k: v for k, v in r.items() if k not in timings} for r in read_log(p / "epochs.jsonl")] for p in (run, expected))
    assert a == b
    results = [json.loads((p / "result.json").read_text()) for p in (run, expected)]
    for digest in ("config", "sha256"):  # the settings may differ in how often a checkpoint is made
        assert [len(result.pop(digest)) for result in results] == [64, 64]
    assert results[0] == results[1]
    for which in ("best", "last"):
        groups = [checkpoint.load(p, which).groups for p in (run, expected)]
        assert groups[0].keys() == groups[1].keys()
        for name in groups[1]:
            assert groups[0][name].keys() == groups[1][name].keys()
            for key, tensor in groups[0][name].items():
                assert torch.equal(tensor, groups[1][name][key]), f"{which} {name} {key}"
