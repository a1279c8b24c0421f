"""Runs the exchange alone with one process a program (``programs_at_once.py``): prints the error of each repetition as JSON."""

import json
import sys
from typing import Any

from programs_at_once import AtOnce, Hang

import torch  # isort: skip: TRITON_INTERPRET is set by the import above

from recurrent_lm.kernels.bench import exchange_run as run


def main(spec: dict[str, Any]) -> dict[str, Any]:
    run.exchange_only = AtOnce(run.exchange_only, spec["deadline"])
    alone = run.ExchangeRun(
        spec["exchange"], spec["programs"], spec["bytes"], spec["steps"], getattr(torch, spec["dtype"]), device="cpu"
    )
    errors = []
    for _ in range(spec["repetitions"]):
        alone.refill()
        alone()
        errors.append(alone.error())
    return {"errors": errors}


if __name__ == "__main__":
    try:
        print(json.dumps(main(json.loads(sys.argv[1]))))
    except Hang as hang:
        print(json.dumps({"hang": str(hang)}))
