"""The loss's bodies read no memory but their own: beside pages that nobody may touch, and beyond 2^31 elements.

One process a case, since a read at the wrong address ends it.
"""

import os
import signal
import subprocess
import sys

import pytest
from paths import ROOT

COMMON = """
import ctypes, mmap, sys, warnings
import torch
from recurrent_lm.kernels import cross_entropy, linear_cross_entropy
from recurrent_lm.kernels.loss.tiles import tiles_backward, tiles_forward
warnings.simplefilter("ignore")
"""
GUARDED = """
libc = ctypes.CDLL(None, use_errno=True)
kept = []

def guarded(tensor, after):
    \"\"\"The same values, the last of them before a page whose reader is killed, or the first of them behind one.\"\"\"
    size, page = tensor.numel() * tensor.element_size(), mmap.PAGESIZE
    whole = -(-size // page) * page
    memory = mmap.mmap(-1, whole + page)
    kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    closed = start + whole if after else start
    begin = whole - size if after else page
    there = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=begin).view(tensor.shape)
    there.copy_(tensor)
    assert libc.mprotect(ctypes.c_void_p(closed), ctypes.c_size_t(page), 0) == 0
    return there

def run(after):
    generator = torch.Generator().manual_seed(0)
    x, w, b, weight = (guarded(torch.randn(s, generator=generator), after) for s in ((35, 19), (141, 19), (141,), (141,)))
    target = guarded(torch.randint(0, 141, (35,), generator=generator), after)
    leaves = [t.requires_grad_() for t in (x, w, b)]
    for how in ({}, {"label_smoothing": 0.1, "weight": weight.abs(), "softcap": 2.0}):
        how = how | {"reduction": "none", "backend": "triton", "return_metrics": True}
        if "weight" in how:
            how["weight"] = guarded(how["weight"], after)
        for strategy in ("cut", "chunked"):
            losses, _ = linear_cross_entropy(x, w, target, linear_bias=b, strategy=strategy, **how)
            torch.autograd.grad(losses.sum(), leaves)
        logits = guarded(torch.randn(35, 141, generator=generator), after).requires_grad_()
        losses, _ = cross_entropy(logits, target, **how)
        torch.autograd.grad(losses.sum(), logits)
        for wrong in (-1, 141, 2**40, -(2**40)):
            from recurrent_lm.kernels.loss.launch import cut_loss, rows_gradient, rows_loss
            from recurrent_lm.kernels.loss.terms import Decoded, Terms, Upstream
            astray = guarded(target.index_fill(0, torch.tensor([0, 34]), wrong), after)
            terms = Terms(label_smoothing=how.get("label_smoothing", 0.0))
            rows = rows_loss(logits.detach(), astray, how.get("weight"), terms, best=True)
            rows_gradient(logits.detach(), torch.empty(35, 141), astray, how.get("weight"), rows.top, rows.log_sum,
                          Upstream(torch.ones(35)), terms)
            cut_loss(Decoded(x.detach(), w.detach(), b.detach(), astray, how.get("weight")), terms, True)
"""
CONTROL = (
    GUARDED
    + """
at = guarded(torch.zeros(3), True).data_ptr()
assert ctypes.string_at(at, 12) == bytes(12)
print("so far", flush=True)
ctypes.string_at(at, 13)
"""
)
ROWS_OF_LOGITS = """
stride = 2**30
storage = torch.empty(2 * stride + 128, dtype=torch.float16)  # nothing of it is touched but three rows
logits = storage.as_strided((3, 100), (stride, 1))
values = torch.randn(3, 100, generator=torch.Generator().manual_seed(0)).half()
logits.copy_(values)
found = []
for inplace, leaf in ((False, values.clone().requires_grad_()), (True, logits.requires_grad_())):
    loss = cross_entropy(leaf, torch.tensor([3, 99, 0]), inplace_backward=inplace, backend="triton")
    found.append((loss.item(), torch.autograd.grad(loss, leaf)[0].clone()))
assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])
"""
TILES = """
D = 2**16
FIXED = {"V": 2**15 + 3, "D": D, "SMOOTHING": 0.0, "SOFTCAP": None,
         "BLOCK_N": 16, "BLOCK_V": 16, "BLOCK_D": 4096, "PRECISION": "ieee"}
generator = torch.Generator().manual_seed(0)

def many(rows):
    \"\"\"[2^15 + rows, D]: only the last rows are touched, the first of which begins at element 2^31.\"\"\"
    made = torch.empty((2**15 + rows) * D, dtype=torch.float16).view(-1, D)
    made[-rows:] = torch.randn(rows, D, generator=generator).half() / 16
    return made

few, lots = torch.randn(3, D, generator=generator).half() / 16, many(3)
z = few.double() @ lots[-3:].double().t()
for x, w, first, left, logits in ((few, lots, 0, 2**15, z), (lots, few, 2**15, 0, z.t())):
    rows = first + 3
    top, ones = torch.zeros(rows), torch.ones(rows)  # with a log-sum-exp of 0 the softmax is exp(z)
    target = torch.full((rows,), left + 1)
    grad = torch.empty(2 * 2**30 + 128, dtype=torch.float32).as_strided((3, 3), (2**30, 1))
    tiles_backward[(1, 1)](x, w, None, grad, None, target, None, None, top, top, ones, None, first, rows, left, left + 3,
                           grad.stride(0), 1, 0, -100, Z_LOSS=0.0, FILTER_EPS=None, **FIXED)
    expected = logits.exp()
    expected[:, 1] -= 1
    assert (grad.double() - expected).norm() < 1e-3 * expected.norm()
"""
SUMMARIES = """
n = 2**30
where = torch.empty(2 * n + 64)
x, w = torch.randn(16, 4), torch.randn(48, 4)
how = {"V": 48, "D": 4, "RANGE": 16, "SMOOTHING": 0.0, "SOFTCAP": None, "BLOCK_N": 16, "BLOCK_V": 16, "BLOCK_D": 16,
       "PRECISION": "ieee"}
tiles_forward[(1, 3)](x, w, None, torch.zeros(16, dtype=torch.long), None, where, where[16:], where[32:], None, None, None,
                      n, -100, **how)
torch.testing.assert_close(where[2 * n : 2 * n + 16], (x @ w[32:].t()).amax(dim=1))
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run([sys.executable, "-c", COMMON + code], capture_output=True, text=True, env=environment, timeout=1200)


@pytest.mark.slow
@pytest.mark.parametrize("after", [True, False], ids=["behind", "before"])
def test_no_read_beside_a_tensor(after: bool) -> None:
    """Sizes that fill no tile, and targets that are no class: nothing outside the arguments is read."""
    done = run(f"{GUARDED}\nrun({after})")
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_a_closed_page_ends_the_process() -> None:
    """The control of the test above."""
    done = run(CONTROL)
    assert (done.stdout, done.returncode) == ("so far\n", -signal.SIGSEGV)


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", [ROWS_OF_LOGITS, TILES, SUMMARIES], ids=["rows of logits", "features of rows and classes", "summaries"]
)
def test_more_than_two_to_the_31_elements(code: str) -> None:
    """The last row begins at element 2^31, where an offset of 32 bits points to memory that is not ours."""
    done = run(code)
    assert done.returncode == 0, done.stderr[-2000:]
