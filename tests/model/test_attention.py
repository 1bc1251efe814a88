"""The mask of MODEL.md 3, and the mask-free attention that equals it."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.model.attention import TeacherForcing, attend, dense_mask, teacher_forcing_attention

layouts = st.builds(
    TeacherForcing,
    frame=st.integers(1, 4),
    blocks=st.integers(1, 4),
    frames_per_block=st.integers(1, 3),
    actions=st.integers(1, 5),
    states=st.just(1),
    noisy_first=st.booleans(),
)
apart = st.builds(
    TeacherForcing,
    frame=st.integers(1, 4),
    blocks=st.integers(1, 4),
    frames_per_block=st.integers(1, 3),
    actions=st.integers(0, 5),
    states=st.just(1),
    noisy_first=st.booleans(),
    dream=st.just("apart"),
)
action_only = st.builds(
    TeacherForcing,
    frame=st.integers(1, 4),
    blocks=st.integers(1, 4),
    frames_per_block=st.integers(1, 3),
    actions=st.integers(1, 5),
    states=st.just(1),
    noisy_first=st.just(False),
    dream=st.just("none"),
)
video_only = st.builds(
    TeacherForcing,
    frame=st.integers(1, 4),
    blocks=st.integers(1, 4),
    frames_per_block=st.integers(1, 3),
    actions=st.just(0),
    states=st.just(0),
    leaky=st.booleans(),
)


def qkv(layout: TeacherForcing) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(layout.length)
    shape = (3, 2, layout.length, 2, 8)
    q, k, v = torch.randn(shape, generator=generator)
    return q, k, v


@given(st.one_of(layouts, apart, action_only, video_only))
def test_structured_equals_dense(layout: TeacherForcing) -> None:
    q, k, v = qkv(layout)
    dense = attend(q, k, v, dense_mask(layout))
    torch.testing.assert_close(
        teacher_forcing_attention(q, k, v, layout), dense, atol=1e-5, rtol=1e-5
    )


@given(st.one_of(layouts, apart, action_only))
def test_gradients_agree_with_dense(layout: TeacherForcing) -> None:
    grads = []
    for structured in (True, False):
        q, k, v = (x.requires_grad_() for x in qkv(layout))
        if structured:
            out = teacher_forcing_attention(q, k, v, layout)
        else:
            out = attend(q, k, v, dense_mask(layout))
        grads.append(torch.autograd.grad(out.square().sum(), (q, k, v)))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@given(layouts)
def test_who_sees_whom(layout: TeacherForcing) -> None:
    mask = dense_mask(layout)
    for i in range(layout.blocks):
        noisy, action, state = layout.noisy(i), layout.action(i), layout.state(i)
        for rows in (noisy, action):
            assert mask[rows, noisy].all()
            assert mask[rows, action].all()
            assert mask[rows, state].all()
            assert mask[rows, : layout.past(i).stop].all()
            # Nothing of its own clean target or of the future, no other block's actions or noise.
            assert not mask[rows, layout.past(i).stop : layout.clean_video].any()
            seen = mask[rows].sum(1)
            expected = layout.past(i).stop + layout.block + layout.actions + layout.states
            assert (seen == expected).all()
        assert mask[state].sum() == layout.states**2
    assert not mask[: layout.clean_video, layout.clean_video :].any()
    assert mask.any(dim=1).all(), "every token sees something"


@given(st.one_of(apart, action_only))
def test_without_a_dream_actions_see_the_past_alone(layout: TeacherForcing) -> None:
    mask = dense_mask(layout)
    for i in range(layout.blocks):
        noisy, action, state = layout.noisy(i), layout.action(i), layout.state(i)
        others = layout.past(i).stop
        assert mask[action, :others].all() and mask[action, action].all()
        assert (mask[action].sum(1) == others + layout.actions + layout.states).all()
        assert mask[action, state].all()
        assert (mask[noisy].sum(1) == others + layout.block).all()
        assert not mask[noisy, layout.video :].any(), "the dream does not see the actions either"
    if layout.dream == "none":
        assert layout.noisy_video == 0


@given(video_only)
def test_only_the_leaky_variant_shows_the_target(layout: TeacherForcing) -> None:
    mask = dense_mask(layout)
    last = layout.noisy(layout.blocks - 1)
    others = [layout.noisy(i) for i in range(layout.blocks - 1)]
    for other in others:
        assert bool(mask[last, other].any()) == layout.leaky
