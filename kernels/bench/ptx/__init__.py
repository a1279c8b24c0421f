"""Executes the PTX of the kernels on a CPU: all threads of all programs, in an order that a GPU may choose.

``python -m recurrent_lm.kernels.bench.ptx run LSTM --hidden 512`` runs a layer and reports its errors; ``--dtype bfloat16``
sets the type, ``count`` gives the cost of a step. In ``code/``: ``parse`` (text), ``flow`` (blocks, loops), ``translate``,
``instructions`` and ``accesses`` (each instruction as Python), ``registers`` (numbers), ``matrix`` (products and their
fragments). Beside it: ``global_memory`` and ``shared_memory`` (accesses and their checks), ``execution`` (order and speed),
``launch`` (the project's own launches), ``cases`` (layers), ``counts``, ``cost``, ``cost_table`` and ``alone`` (one program,
without tensors, for the compile tables).

It reports as ``Fault``: an access out of bounds or misaligned, shared memory that is read before it is written, a race in
shared memory, unordered accesses to global memory, a store that a wgmma may miss for want of a proxy fence, an overwrite of
data that an unfinished copy or product still needs, and a deadlock. It refuses unknown instructions by name, among them TMA,
clusters, tcgen05, named barriers and lanes of a warp that diverge at a branch.

Differences from a GPU: exp2, log2, division and square roots are exact; a product of the tensor cores is summed in float32 in
no particular order; a wgmma reads its operands when it is issued, each warp's rows by themselves; ``cp.async`` reads its source
when it is issued; lanes of one warp are in step, so races between them are not found.
"""
