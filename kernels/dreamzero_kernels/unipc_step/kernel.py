"""unipc_step in Triton: guidance, update, and sums that the last program to finish adds up."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl
from torch import Tensor

from ..common import launch, power_of_two
from .state import BLOCK, SolverState


@triton.jit
def weigh(weight, vector):
    """A zero weight hides what an earlier chunk left, not finite perhaps."""
    return tl.where(weight == 0.0, 0.0, weight * vector)


@triton.jit
def unipc_step_kernel(
    table,
    sample,
    velocity,
    history,
    sums,
    partial,
    tickets,
    conditional,
    unconditional,
    step,
    elements,
    guidance,
    GUIDED: tl.constexpr,
    COLUMNS: tl.constexpr,
    PROGRAMS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program BLOCK elements; the last one to finish adds up the sums of all."""
    row = table + tl.load(step) * COLUMNS
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < elements
    flow = tl.load(conditional + i, mask=mask, other=0.0).to(tl.float32)
    if GUIDED:
        other = tl.load(unconditional + i, mask=mask, other=0.0).to(tl.float32)
        flow = other + guidance * (flow - other)
    before = tl.load(velocity + i, mask=mask, other=0.0)
    here = partial + tl.program_id(0) * 3
    tl.store(here, tl.sum(flow * before))
    tl.store(here + 1, tl.sum(flow * flow))
    tl.store(here + 2, tl.sum(before * before))

    x = tl.load(sample + i, mask=mask, other=0.0)
    last = tl.load(history + i, mask=mask, other=0.0)
    older = tl.load(history + elements + i, mask=mask, other=0.0)
    old = tl.load(history + 2 * elements + i, mask=mask, other=0.0)
    data = x - tl.load(row) * flow
    current = weigh(tl.load(row + 1), x) + weigh(tl.load(row + 2), last)
    current += weigh(tl.load(row + 3), older) + weigh(tl.load(row + 4), old)
    current += weigh(tl.load(row + 5), data)
    following = weigh(tl.load(row + 6), current) + weigh(tl.load(row + 7), old)
    following += weigh(tl.load(row + 8), data)
    tl.store(velocity + i, flow, mask=mask)
    tl.store(history + i, current, mask=mask)
    tl.store(history + elements + i, old, mask=mask)
    tl.store(history + 2 * elements + i, data, mask=mask)
    tl.store(sample + i, following, mask=mask)

    # All threads have stored before the ticket is drawn; whoever draws the last one adds up, in a
    # fixed order, and puts the counter back.
    tl.debug_barrier()
    ticket = tl.atomic_add(tickets, 1, sem="acq_rel")
    if ticket == PROGRAMS - 1:
        part = tl.arange(0, PARTS)
        there = part < PROGRAMS
        at = partial + part * 3
        dot = tl.sum(tl.load(at, mask=there, other=0.0, cache_modifier=".cg"))
        new = tl.sum(tl.load(at + 1, mask=there, other=0.0, cache_modifier=".cg"))
        gone = tl.sum(tl.load(at + 2, mask=there, other=0.0, cache_modifier=".cg"))
        tl.store(sums, dot / tl.maximum(tl.sqrt(new * gone), 1e-30))
        tl.store(sums + 1, dot)
        tl.store(sums + 2, new)
        tl.store(sums + 3, gone)
        tl.store(tickets, 0)


def unipc_step(
    state: SolverState,
    conditional: Tensor,
    unconditional: Tensor | None,
    guidance: float,
    step: Tensor,
) -> Tensor:
    """As ``reference.unipc_step``, which has the shapes."""
    programs = len(state.partial)
    launch(
        unipc_step_kernel,
        (programs,),
        num_warps=4,
        table=state.table,
        sample=state.sample,
        velocity=state.velocity,
        history=state.history,
        sums=state.sums,
        partial=state.partial,
        tickets=state.tickets,
        conditional=conditional,
        unconditional=conditional if unconditional is None else unconditional,
        step=step,
        elements=state.sample.numel(),
        guidance=float(guidance),
        GUIDED=unconditional is not None,
        COLUMNS=state.table.shape[1],
        PROGRAMS=programs,
        PARTS=power_of_two(programs),
        BLOCK=BLOCK,
    )
    return state.sums
