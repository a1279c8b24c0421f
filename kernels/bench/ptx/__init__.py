"""A machine that executes the PTX of the kernels on a CPU: all threads of all programs, as a GPU may order them.

``python -m recurrent_lm.kernels.bench.ptx run LSTM --hidden 512 --dtype bfloat16`` runs a layer and reports its errors;
``count`` gives what a step costs. In ``code/``: ``parse`` (text), ``flow`` (blocks, loops), ``translate``, ``instructions`` and
``accesses`` (each instruction as Python), ``registers`` (numbers), ``matrix`` (products and their fragments). Beside it:
``global_memory`` and ``shared_memory`` (accesses and what they may not do), ``execution`` (order and speed), ``launch`` (the
project's own launches), ``cases`` (layers), ``counts``, ``cost`` and ``cost_table``.

It reports, as ``Fault``: an access out of bounds or misaligned, shared memory that is read before it is written, a race in
shared memory, accesses to global memory that nothing orders, a store that a wgmma may miss for want of a proxy fence, an
overwrite of what a copy or product under way still needs, and a deadlock. It refuses by name whatever it does not know, among
that TMA, clusters, tcgen05, named barriers and lanes of a warp that part at a branch.

Differences from a GPU: exp2, log2, division and square roots are exact; a product of the tensor cores is summed in float32 in
no particular order; a wgmma reads its operands when it is issued, each warp's rows by themselves; ``cp.async`` reads its source
when it is issued; lanes of one warp are in step, so what only separates them is not checked.
"""
