"""The PTX machine itself: each kind of product and of access against numpy, and what it must report."""

from typing import Any

import numpy as np
import pytest

from recurrent_lm.kernels.bench.ptx.code import matrix
from recurrent_lm.kernels.bench.ptx.code import registers as values
from recurrent_lm.kernels.bench.ptx.code.flow import check_products
from recurrent_lm.kernels.bench.ptx.code.parse import Refused, parse
from recurrent_lm.kernels.bench.ptx.execution import Machine
from recurrent_lm.kernels.bench.ptx.global_memory import Fault

HEAD = """
.version 8.8
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 global_smem[];
.visible .entry kernel(
	.param .u64 .ptr .global .align 1 kernel_param_0,
	.param .u64 .ptr .global .align 1 kernel_param_1
)
.reqntid 128
{
"""
SETUP = """
	ld.param.b64 %rd1, [kernel_param_0];
	ld.param.b64 %rd2, [kernel_param_1];
	mov.u32 %r1, %tid.x;
	mov.b32 %r2, global_smem;
"""


def run(body: str, source: Any, out_bytes: int, warps: int = 1, programs: int = 1, seed: int = 0, **how: Any) -> Any:
    """The bytes that a kernel leaves in its second buffer; the first is ``source``."""
    kernel = parse(HEAD + SETUP + body + "\tret;\n}\n")
    buffers = [np.ascontiguousarray(source).view("u1").ravel().copy(), np.full(out_bytes, 255, "u1")]
    machine = Machine(kernel, buffers, lambda bases: list(bases), (programs, 1, 1), warps, 65536, seed, **how)
    machine.run()
    machine.memory.read_back(buffers)
    return buffers[1]


def numbers(shape: tuple[int, ...], kind: str) -> tuple[Any, Any]:
    """Random numbers as bits of a kind, and as float32."""
    x = np.random.default_rng(0).standard_normal(shape).astype("f4")
    if kind == "bf16":
        bits = values.to_bf16(x)
        return bits, values.from_bf16(bits)
    if kind == "f16":
        bits = values.to_f16(x)
        return bits, values.from_f16(bits)
    return x.view("u4"), (x.view("u4") & np.uint32(0xFFFFE000)).view("f4")


def registers(count: int, first: int = 100) -> str:
    return "{" + ", ".join(f"%r{first + i}" for i in range(count)) + "}"


def store_all(count: int, first: int = 100) -> str:
    """Each thread's registers, one after the other."""
    lines = f"\tmad.wide.u32 %rd9, %r1, {4 * count}, %rd2;\n"
    return lines + "".join(f"\tst.global.b32 [%rd9+{4 * i}], {{ %r{first + i} }};\n" for i in range(count))


def load_words(count: int, first: int, offset: int) -> str:
    lines = f"\tmad.wide.u32 %rd8, %r1, {4 * count}, %rd1;\n"
    return lines + "".join(f"\tld.global.b32 {{ %r{first + i} }}, [%rd8+{offset + 4 * i}];\n" for i in range(count))


G, T = np.arange(32) // 4, np.arange(32) % 4


def of_sums(out: Any, columns: int) -> Any:
    """[16 warps, columns] of the registers that lanes stored, as the PTX manual draws D of mma and wgmma."""
    lanes = out.view("f4").reshape(-1, 32, columns // 2)
    d = np.empty((len(lanes) * 16, columns), "f4")
    for warp, words in enumerate(lanes):
        for i in range(columns // 2):
            d[16 * warp + G + 8 * (i // 2 % 2), 8 * (i // 4) + 2 * T + i % 2] = words[:, i]
    return d


@pytest.mark.parametrize("kind", ["bf16", "f16", "tf32"])
def test_mma_is_a_product(kind: str) -> None:
    k = 8 if kind == "tf32" else 16
    bits, x = numbers((24, k), kind)
    a, b = x[:16], x[16:].T
    words = bits.view("u4").reshape(24, -1)  # [rows, words of a row]
    lanes = np.empty((32, 6), "u4")
    for i in range(4):
        lanes[:, i] = words[G + 8 * (i % 2), T + 4 * (i // 2)]
    for i in range(2):
        lanes[:, 4 + i] = words[16 + G, T + 4 * i]
    shape = "m16n8k8.row.col.f32.tf32.tf32" if kind == "tf32" else f"m16n8k16.row.col.f32.{kind}.{kind}"
    body = load_words(6, 10, 0) + "".join(f"\tmov.b32 %r{100 + i}, 0f3F800000;\n" for i in range(4))
    body += f"\tmma.sync.aligned.{shape}.f32 {registers(4)}, {registers(4, 10)}, {registers(2, 14)}, {registers(4)};\n"
    out = of_sums(run(body + store_all(4), lanes, 512), 8)
    np.testing.assert_allclose(out, a.astype("f8") @ b + 1, atol=1e-5)


def swizzled(tile: Any, swizzle: int, base: int = 0) -> Any:
    """Bytes of a tile [rows, row bytes up to the swizzle's] as wgmma expects them."""
    out = np.zeros(tile.nbytes, "u1")
    flat = tile.view("u1").reshape(len(tile), -1)
    for r in range(len(tile)):
        for byte in range(flat.shape[1]):
            at = r * swizzle + byte
            out[at ^ (at >> 7 & (swizzle // 16 - 1)) << 4] = flat[r, byte]
    return out


FILL = """
	mov.b32 %r3, 0;
$FILL:
	shl.b32 %r4, %r1, 2;
	add.s32 %r4, %r4, %r3;
	cvt.u64.u32 %rd3, %r4;
	add.s64 %rd3, %rd1, %rd3;
	ld.global.b32 { %r5 }, [%rd3];
	add.s32 %r6, %r2, %r4;
	st.shared.b32 [%r6], {%r5};
	add.s32 %r3, %r3, STRIDE;
	setp.lt.s32 %p1, %r3, BYTES;
	@%p1 bra $FILL;
"""


def filled(threads: int, bytes: int) -> str:
    """Copy so many bytes from the first buffer to shared memory."""
    return FILL.replace("STRIDE", str(4 * threads)).replace("BYTES", str(bytes))


def descriptor(start: int, leading: int, stride: int, swizzle: int) -> int:
    mode = {0: 0, 128: 1, 64: 2, 32: 3}[swizzle]
    value = ((1 << 14) + start) >> 4 | (leading >> 4) << 16 | (stride >> 4) << 32 | mode << 62
    return value - (1 << 64) if value >> 63 else value


@pytest.mark.parametrize(("wait", "where"), [(0, "behind"), (1, "behind"), (None, "behind"), (0, "loop"), (None, "loop")])
def test_registers_of_a_product_under_way_are_found_along_every_path(wait: int | None, where: str) -> None:
    """The use stands before the product in the text, behind a jump back or at the head of a loop."""
    product = f"\twgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 {registers(8)}, %rd10, %rd11, 1, 1, 1, 0, 0;\n"
    product += "\twgmma.commit_group.sync.aligned;\n"
    waited = "" if wait is None else f"\twgmma.wait_group.sync.aligned {wait};\n"
    use = "\tst.global.b32 [%rd2], { %r100 };\n"
    if where == "behind":
        body = f"\tbra.uni $L_2;\n$L_1:\n{waited}{use}\tret;\n$L_2:\n{product}\tbra.uni $L_1;\n"
    else:
        body = f"$L_1:\n{use}{product}{waited}\t@%p1 bra $L_1;\n"
    kernel = parse(HEAD + SETUP + body + "\tret;\n}\n")
    if wait == 0:
        check_products(kernel)
    else:
        with pytest.raises(Refused, match="under way"):
            check_products(kernel)


@pytest.mark.parametrize("swizzle", [128, 64, 32])
@pytest.mark.parametrize(
    ("kind", "in_registers", "in_step"), [("bf16", False, False), ("f16", True, False), ("tf32", False, True)]
)
def test_wgmma_reads_operands_along_k_through_its_swizzle(swizzle: int, kind: str, in_registers: bool, in_step: bool) -> None:
    """A [64, k] and B [16, k], k of one swizzled row; a product for each 32 bytes of it."""
    size = 4 if kind == "tf32" else 2
    k, depth = swizzle // size, 32 // size
    bits, x = numbers((80, k), kind)
    source = np.concatenate([swizzled(bits[:64], swizzle), swizzled(bits[64:], swizzle)])
    words = bits.view("u4").reshape(80, -1)
    body = filled(128, len(source))
    lanes = []
    for step in range(k // depth):
        for i in range(4):
            rows = np.concatenate([16 * warp + G + 8 * (i % 2) for warp in range(4)])
            lanes.append(words[rows, np.tile(T, 4) + 4 * (i // 2) + 8 * step])
    source = np.concatenate([source, np.stack(lanes, 1).astype("u4").view("u1").ravel()])
    if in_registers:
        body += load_words(len(lanes), 200, 80 * swizzle)
    body += "\tfence.proxy.async.shared::cta;\n\tbar.sync 0;\n\twgmma.fence.sync.aligned;\n"
    stride = 8 * swizzle
    for step in range(k // depth):
        body += f"\tmov.b64 %rd10, {descriptor(32 * step, 16, stride, swizzle)};\n"
        body += f"\tmov.b64 %rd11, {descriptor(64 * swizzle + 32 * step, 16, stride, swizzle)};\n"
        a = registers(4, 200 + 4 * step) if in_registers else "%rd10"
        flags = "" if kind == "tf32" else ", 0" if in_registers else ", 0, 0"
        operands = f"{registers(8)}, {a}, %rd11, {int(step > 0)}, 1, 1{flags}"
        body += f"\twgmma.mma_async.sync.aligned.m64n16k{depth}.f32.{kind}.{kind} {operands};\n"
    body += "\twgmma.commit_group.sync.aligned;\n\twgmma.wait_group.sync.aligned 0;\n"
    out = of_sums(run(body + store_all(8), source, 64 * 64, warps=4, in_step=in_step), 16)
    np.testing.assert_allclose(out, x[:64].astype("f8") @ x[64:].T, atol=1e-5)


@pytest.mark.parametrize("swizzle", [128, 64, 32])
def test_wgmma_reads_a_turned_operand(swizzle: int) -> None:
    """B [16, n] with n along a row, n of two swizzled rows."""
    across = swizzle // 2
    n = 2 * across
    bits, x = numbers((64 + n, 16), "bf16")
    b = bits[64:].T.reshape(16, 2, across).transpose(1, 0, 2).reshape(32, across)
    source = np.concatenate([swizzled(bits[:64], 32), swizzled(np.ascontiguousarray(b), swizzle)])
    body = filled(128, len(source)) + "\tbar.sync 0;\n\tfence.proxy.async;\n"  # on the reader's side
    body += f"\tmov.b64 %rd10, {descriptor(0, 16, 256, 32)};\n"
    body += f"\tmov.b64 %rd11, {descriptor(2048, 16 * swizzle, 8 * swizzle, swizzle)};\n"
    body += f"\twgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {registers(n // 2)}, %rd10, %rd11, 0, 1, 1, 0, 1;\n"
    body += "\twgmma.commit_group.sync.aligned;\n\twgmma.wait_group.sync.aligned 0;\n"
    out = of_sums(run(body + store_all(n // 2), source, 64 * 4 * n, warps=4), n)
    np.testing.assert_allclose(out, x[:64].astype("f8") @ x[64:].T, atol=1e-5)


@pytest.mark.parametrize("trans", [False, True])
@pytest.mark.parametrize("matrices", [1, 2, 4])
def test_ldmatrix_gives_fragments_and_stmatrix_takes_them(matrices: int, trans: bool) -> None:
    halves = np.arange(matrices * 64, dtype="u2").reshape(matrices, 8, 8)
    suffix = f"x{matrices}{'.trans' if trans else ''}.shared.b16"
    row = "\tshl.b32 %r7, %r1, 4;\n\tadd.s32 %r7, %r7, %r2;\n"
    load = filled(32, halves.nbytes) + row + f"\tldmatrix.sync.aligned.m8n8.{suffix} {registers(matrices)}, [%r7];\n"
    out = run(load + store_all(matrices), halves, 128 * matrices).view("u2").reshape(32, matrices, 2)
    for i in range(matrices):
        pair = [halves[i, 2 * T + j, G] if trans else halves[i, G, 2 * T + j] for j in range(2)]
        np.testing.assert_array_equal(out[:, i], np.stack(pair, 1))
    back = load + "\tadd.s32 %r8, %r7, 4096;\n"
    back += f"\tstmatrix.sync.aligned.m8n8.{suffix} [%r8], {registers(matrices)};\n"
    back += "\tshl.b32 %r9, %r1, 2;\n\tadd.s32 %r9, %r9, %r2;\n"
    back += "".join(f"\tld.shared.b32 %r{100 + i}, [%r9+{4096 + 128 * i}];\n" for i in range(matrices))
    stored = run(back + store_all(matrices), halves, 128 * matrices).view("u4").reshape(32, matrices).T
    np.testing.assert_array_equal(stored.ravel(), halves.view("u4").ravel())


def test_conversions_and_integers() -> None:
    x = np.array([1.0, -2.5, 3.0e38, np.nan, 1.00390625, 1.01171875, 6.1e-5, -0.0] * 4, "f4")
    body = (
        load_words(1, 10, 0)
        + """
	cvt.rn.bf16.f32 %rs1, %r10;
	cvt.rn.bf16x2.f32 %r11, %r10, %r10;
	mov.b32 {%rs2, %rs3}, %r11;
	mov.b32 %r100, {%rs1, %rs3};
	shl.b32 %r101, %r1, 40;
	bfe.s32 %r102, %r10, 31, 1;
	prmt.b32 %r103, %r10, 0, 0x7701U;
	shfl.sync.bfly.b32 %r104, %r1, 5, 31, -1;
	mov.b32 %r105, -1;
	redux.sync.add.s32 %r106, %r1, %r105;
	setp.ltu.f32 %p1, %r10, 0f00000000;
	selp.b32 %r107, 1, 0, %p1;
"""
    )
    out = run(body + store_all(8), x, 1024).view("u4").reshape(32, 8)
    bits = x.view("u4")
    bf16 = np.where(np.isnan(x), 0x7FFF, (bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("u4")
    np.testing.assert_array_equal(out[:, 0], bf16 | bf16 << 16)
    assert not out[:, 1].any()
    np.testing.assert_array_equal(out[:, 2], np.where(bits >> 31, 0xFFFFFFFF, 0))
    np.testing.assert_array_equal(out[:, 3], (bits >> 8 & 255) | (bits & 255) << 8)
    np.testing.assert_array_equal(out[:, 4], np.arange(32) ^ 5)
    assert (out[:, 6] == 31 * 16).all()
    np.testing.assert_array_equal(out[:, 7], ~(x >= 0))


def test_integers_are_divided_towards_zero() -> None:
    x = np.array([7, -7, 0, 2**31 - 1, -(2**31), 1, -1, 12] * 4, "i4")
    body = load_words(1, 10, 0) + "\tmov.b32 %r11, -3;\n"
    body += "".join(
        f"\t{name} %r{100 + i}, %r10, %r11;\n"
        for i, name in enumerate(("div.s32", "rem.s32", "div.u32", "rem.u32", "mul.hi.s32", "mul.hi.u32"))
    )
    out = run(body + store_all(6), x, 768).view("u4").reshape(32, 6)
    for lane, value in enumerate(x.tolist()):
        whole, unsigned, by = int(value / -3), value % 2**32, 2**32 - 3
        expected = [whole, value + 3 * whole, unsigned // by, unsigned % by, value * -3 >> 32, unsigned * by >> 32]
        assert out[lane].tolist() == [number % 2**32 for number in expected]


@pytest.mark.parametrize("kind", ["bf16", "f16"])
def test_halves_are_added_and_multiplied_with_one_rounding(kind: str) -> None:
    bits, wide = numbers((64,), kind)
    swap = "\tprmt.b32 %r11, %r10, 0, 0x1032U;\n"
    body = "".join(f"\t{name}.{kind}x2 %r{100 + i}, %r10, %r11;\n" for i, name in enumerate(("add.rn", "sub.rn", "mul.rn")))
    fused = f"\tfma.rn.{kind}x2 %r103, %r10, %r11, %r10;\n"
    out = run(load_words(1, 10, 0) + swap + body + fused + store_all(4), bits, 512).view("u2").reshape(32, 4, 2)
    narrow = values.to_bf16 if kind == "bf16" else values.to_f16
    a, b = wide.reshape(32, 2), wide.reshape(32, 2)[:, ::-1]
    for i, expected in enumerate((a + b, a - b, a * b, (a.astype("f8") * b + a).astype("f4"))):
        np.testing.assert_array_equal(out[:, i], narrow(np.ascontiguousarray(expected)))


@pytest.mark.parametrize("kind", ["bf16", "f16"])
def test_a_half_is_added_to_a_float(kind: str) -> None:
    bits, wide = numbers((64,), kind)
    body = "\tmov.b32 {%rs1, %rs2}, %r10;\n\tmov.b32 %r11, 0f3F8CCCCD;\n"
    body += f"\tadd.rn.f32.{kind} %r100, %rs1, %r11;\n\tsub.rn.f32.{kind} %r101, %rs1, %r11;\n"
    body += f"\tfma.rn.f32.{kind} %r102, %rs1, %rs2, %r11;\n"
    out = run(load_words(1, 10, 0) + body + store_all(3), bits, 384).view("f4").reshape(32, 3)
    (a, b), c = wide.reshape(32, 2).T, np.float32(1.1)
    np.testing.assert_array_equal(out, np.stack([a + c, a - c, (a.astype("f8") * b + c).astype("f4")], 1))


def test_two_floats_are_added_and_multiplied_at_once() -> None:
    _, wide = numbers((64,), "tf32")
    body = load_words(2, 10, 0) + "\tmov.b64 %rd3, {%r10, %r11};\n\tmov.b64 %rd4, {%r11, %r10};\n"
    for i, name in enumerate(("add", "sub", "mul", "fma.rn")):
        more = ", %rd3" if name == "fma.rn" else ""
        body += f"\t{name}.f32x2 %rd5, %rd3, %rd4{more};\n\tmov.b64 {{%r{100 + 2 * i}, %r{101 + 2 * i}}}, %rd5;\n"
    out = run(body + store_all(8), wide, 1024).view("f4").reshape(32, 4, 2)
    a, b = wide.reshape(32, 2), wide.reshape(32, 2)[:, ::-1]
    for i, expected in enumerate((a + b, a - b, a * b, (a.astype("f8") * b + a).astype("f4"))):
        np.testing.assert_array_equal(out[:, i], expected)


def test_a_warp_waits_for_its_own_lanes() -> None:
    out = run("\tbar.warp.sync -1;\n\tmov.b32 %r100, %r1;\n" + store_all(1), np.zeros(4), 256, warps=2).view("u4")
    np.testing.assert_array_equal(out, np.arange(64))
    with pytest.raises(Refused, match="some lanes"):
        run("\tbar.warp.sync 15;\n", np.zeros(4), 256)


def test_the_largest_of_three() -> None:
    source = np.array([1.0, 2.0, np.nan], "f4")
    body = "".join(f"\tld.global.b32 {{ %r{10 + i} }}, [%rd1+{4 * i}];\n" for i in range(3))
    body += "\tmax.f32 %r100, %r10, %r12, %r11;\n\tmin.NaN.f32 %r101, %r10, %r11, %r12;\n"
    out = run(body + store_all(2), source, 256).view("f4").reshape(32, 2)
    np.testing.assert_array_equal(out, np.tile(np.float32([2.0, np.nan]), (32, 1)))


def test_a_register_that_nothing_writes_holds_garbage() -> None:
    """Compilers pack such a one beside a number of which only the other half is used."""
    body = "\tmov.b32 {%rs1, %rs2}, %r1;\n\tmov.b32 %r100, {%rs1, %rs9};\n"
    out = run(body + store_all(1), np.zeros(4, "u4"), 128).view("u4")
    np.testing.assert_array_equal(out & 0xFFFF, np.arange(32))
    assert (out >> 16 == 0xA5A5).all()


def test_a_swizzle_is_its_own_inverse() -> None:
    at = matrix.described(descriptor(0, 16, 1024, 128) % (1 << 64), 8, 64, 2, False)
    assert sorted((at - (1 << 14)).ravel().tolist()) == list(range(0, 1024, 2))


EXCHANGE = """
	setp.eq.b32 %p1, %r1, 0;
	shl.b32 %r3, %r1, 2;
	add.s32 %r4, %r2, %r3;
	xor.b32 %r5, %r3, 128;
	add.s32 %r5, %r2, %r5;
	st.shared.b32 [%r4], {%r1};
	BARRIER
	ld.shared.b32 %r100, [%r5];
"""


def test_a_missing_barrier_is_a_race_whatever_the_order() -> None:
    out = run(EXCHANGE.replace("BARRIER", "bar.sync 0;") + store_all(1), np.zeros(4), 256, warps=2).view("u4")
    np.testing.assert_array_equal(out, np.arange(64) ^ 32)
    for seed in range(4):
        with pytest.raises(Fault, match=r"barrier|never written"):
            run(EXCHANGE.replace("BARRIER", "") + store_all(1), np.zeros(4), 256, warps=2, seed=seed)
    with pytest.raises(Fault, match=r"barrier|never written"):
        run(EXCHANGE.replace("BARRIER", "") + store_all(1), np.zeros(4), 256, warps=2, in_step=True)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("\tst.global.b32 [%rd2+256], { %r1 };\n", "out of bounds"),
        ("\tst.global.b32 [%rd2+2], { %r1 };\n", "no multiple of 4"),
        ("\tld.shared.b32 %r100, [global_smem+65536];\n", "out of bounds"),
        ("\tld.shared.b32 %r100, [global_smem];\n", "never written"),
        ("\tst.global.b32 [%rd2], { %r1 };\n", "different numbers"),
        ("\tst.shared.b32 [global_smem], {%r1};\n", "different numbers"),
        ("\tld.global.b32 { %r100 }, [%rd2];\n\tst.global.b32 [%rd2], { %r2 };\n", "unordered"),
        ("$LOOP:\n\tld.volatile.global.b32 { %r9 }, [%rd2];\n\tsetp.ne.b32 %p1, %r9, 7;\n\t@%p1 bra $LOOP;\n", "deadlock"),
    ],
)
def test_what_a_kernel_may_not_do_is_reported(body: str, message: str) -> None:
    with pytest.raises(Fault, match=message):
        run(body, np.zeros(4), 256, warps=2, programs=2)


@pytest.mark.parametrize(
    "body",
    [
        "\ttanh.approx.f32 %r9, %r1;\n",
        "\tld.global.L1::evict_first.b32 { %r9 }, [%rd1];\n",
        "\tbar.sync 1, 64;\n",
        "\tmbarrier.init.shared.b64 [%r2], 1;\n",
        "\tcp.async.bulk.tensor.2d.shared::cluster.global [%r2], [%rd1];\n",
        "\tsetp.lt.u32 %p1, %r1, 5;\n\t@%p1 bra $END;\n$END:\n",
        "\tshfl.sync.bfly.b32 %r9, %r1, 1, 31, 15;\n",
        "\tmov.u32 %r9, %clusterid.x;\n",
    ],
)
def test_what_is_not_known_is_refused_by_name(body: str) -> None:
    with pytest.raises(Refused, match=r"line \d+|clusterid"):
        run(body, np.zeros(4), 256)


MESSAGE = """
	mov.u32 %r20, %ctaid.x;
	setp.eq.b32 %p2, %r20, 0;
	setp.eq.b32 %p1, %r1, 0;
	@!%p2 bra $READER;
	mad.wide.u32 %rd3, %r1, 4, %rd2;
	st.global.b32 [%rd3], { %r1 };
	bar.sync 0;
	@%p1 red.global.gpu.RELEASE.add.u32 [%rd2+256], %r20;
	add.s32 %r21, %r20, 1;
	@%p1 red.global.gpu.RELEASE.add.u32 [%rd2+256], %r21;
	ret;
$READER:
	mov.b32 %r22, 1;
	@%p1 ld.global.gpu.ACQUIRE.b32 %r22, [%rd2+256];
	st.shared.b32 [global_smem], {%r22};
	bar.sync 0;
	ld.shared.b32 %r23, [global_smem];
	bar.sync 0;
	setp.eq.b32 %p3, %r23, -1;
	@%p3 bra $READER;
	xor.b32 %r24, %r1, 32;
	mad.wide.u32 %rd4, %r24, 4, %rd2;
	LOAD { %r100 }, [%rd4];
"""


def message(
    release: str = "release", acquire: str = "acquire", load: str = "ld.global.b32", seed: int = 0, ordered: bool = True
) -> Any:
    """What program 1 reads of what program 0 wrote, behind a counter that starts as -1."""
    body = MESSAGE.replace("RELEASE", release).replace("ACQUIRE", acquire).replace("LOAD", load)
    body = body.replace("st.shared.b32 [global_smem], {%r22};", "@%p1 st.shared.b32 [global_smem], {%r22};")
    body += "\tmad.wide.u32 %rd9, %r1, 4, %rd2;\n\tst.global.b32 [%rd9+512], { %r100 };\n"
    return run(body, np.zeros(4), 768, warps=2, programs=2, seed=seed, ordered=ordered).view("u4")[128:]


def test_a_message_between_programs_needs_release_and_acquire() -> None:
    """Loads without either are reported; where volatile ones need no order, they see old numbers under some schedule."""
    for seed in range(3):
        np.testing.assert_array_equal(message(seed=seed), np.arange(64) ^ 32)
        for weaker in ({"release": "relaxed"}, {"acquire": "relaxed"}):
            for load in ("ld.global.b32", "ld.volatile.global.b32"):
                with pytest.raises(Fault, match="unordered"):
                    message(**weaker, load=load, seed=seed)
    for weaker in ({"release": "relaxed"}, {"acquire": "relaxed"}):
        seen = [message(**weaker, load="ld.volatile.global.b32", seed=seed, ordered=False) for seed in range(12)]
        assert any((found == 0xFFFFFFFF).any() for found in seen)
    volatile = [message(load="ld.volatile.global.b32", seed=seed) for seed in range(6)]
    assert all((found == np.arange(64) ^ 32).all() for found in volatile)


def test_the_seed_decides_the_order() -> None:
    body = "\tmov.b32 %r3, 1;\n\tatom.global.gpu.acq_rel.add.u32 %r100, [%rd1], %r3;\n" + store_all(1)
    found = [run(body, np.zeros(4), 512, warps=4, seed=seed) for seed in (0, 0, 1, 2, 3)]
    np.testing.assert_array_equal(found[0], found[1])
    for numbers in found:
        np.testing.assert_array_equal(np.sort(numbers.view("u4")), np.arange(128))
    assert len({numbers.tobytes() for numbers in found}) > 1
