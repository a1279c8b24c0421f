#!/usr/bin/env bash
# torch 2.13.0: forward mode through an operation of torch.library.custom_op with register_autograd gives tangents of 0.
#
# The operation has a backward formula and no forward one. torch.func.jvp and jacfwd then return zeros, and dual numbers lose their
# tangent (None), without an error or a warning, though the output depends on the input. A torch.autograd.Function without a jvp
# raises in the same place, and so does torch.func.grad of the same operation. One would expect forward mode to raise, too.
#
# Output seen (2026-11-30):
#   torch 2.13.0+cpu: x = [1, 3], d(x^2) = [2, 6], but jvp [0.0, 0.0], jacfwd diagonal [0.0, 0.0], dual tangent None, warnings 0;
#   backward [2.0, 6.0]; torch.func.grad raises True; an autograd.Function without jvp raises True
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/look.py" <<'PY'
import warnings

import torch
from torch.autograd import forward_ad


@torch.library.custom_op("finding::square", mutates_args=())
def square(x: torch.Tensor) -> torch.Tensor:
    return x * x


def keep(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])


def gradient(ctx, upstream):
    return 2 * ctx.saved_tensors[0] * upstream


square.register_autograd(gradient, setup_context=keep)


class Square(torch.autograd.Function):
    forward = staticmethod(lambda x: x * x)
    setup_context = staticmethod(keep)
    backward = staticmethod(gradient)


def raises(function, *arguments):
    try:
        function(*arguments)
    except RuntimeError:
        return True
    return False


x, ones = torch.tensor([1.0, 3.0]), torch.ones(2)
torch.func.jvp(torch.sin, (x,), (ones,))  # torch's own warnings, given once, come here
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    tangent = torch.func.jvp(square, (x,), (ones,))[1].tolist()
    jacobian = torch.func.jacfwd(square)(x).diagonal().tolist()
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(square(forward_ad.make_dual(x, ones))).tangent
leaf = x.clone().requires_grad_()
square(leaf).sum().backward()
of_operation = raises(torch.func.grad(lambda x: square(x).sum()), x)
of_function = raises(torch.func.jvp, Square.apply, (x,), (ones,))
print(
    f"torch {torch.__version__}: x = [1, 3], d(x^2) = [2, 6], but jvp {tangent}, jacfwd diagonal {jacobian}, dual tangent {dual}, "
    f"warnings {len(caught)};\nbackward {leaf.grad.tolist()}; torch.func.grad raises {of_operation}; an autograd.Function "
    f"without jvp raises {of_function}"
)
seen = (tangent, jacobian, dual, len(caught), leaf.grad.tolist(), of_operation, of_function)
assert seen == ([0.0, 0.0], [0.0, 0.0], None, 0, [2.0, 6.0], True, True), "the behaviour has changed"
PY
"$folder/venv/bin/python" "$folder/look.py"
