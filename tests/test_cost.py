"""Estimates of cost: more work never costs less, and what is heavy is told from what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazypix.cost import HEAVY_S, rendering_s, verifying_s
from lazypix.formats import FORMATS, READABLE, by_name
from lazypix.plan import Limits, Plan, Probe, make_plan
from lazypix.transform import Transform

WRITABLE = [found.name for found in FORMATS if found.saves]
LIMITS = Limits(max_pixels=10**11, max_side=65_535)


def plan(text: str, source: str = "jpg", width: int = 4000, height: int = 3000, frames: int = 1) -> Plan:
    return make_plan(Transform.parse(text), Probe(format=source, width=width, height=height, frames=frames), LIMITS)


@pytest.mark.parametrize("source", READABLE)
@pytest.mark.parametrize("result", WRITABLE)
def test_every_pair_of_formats_has_a_cost(source: str, result: str) -> None:
    assert 0 < rendering_s(plan(f"300x,format={result}", source)) < 60
    assert 0 < verifying_s(source, 1_000_000) < 60


@pytest.mark.parametrize(
    ("work", "heavy"),
    [
        (plan("300x,format=jpg"), False),
        (plan("1200x,format=webp"), False),
        (plan("1200x,format=avif"), False),
        (plan("1200x,format=png", "png"), False),
        (plan("8000x,format=avif"), True),
        (plan("format=avif", "jpg", 8000, 6000), True),
        (plan("8000x6000,fit=fill,format=jpg"), True),
        (plan("1200x,format=gif"), True),  # finds a palette for every pixel of a photograph
        (plan("900x,format=gif", "gif", 1000, 1000, 48), True),
        (plan("900x,format=gif", "gif", 1000, 1000, 2), False),
    ],
)
def test_what_keeps_a_renderer_for_more_than_a_second_is_heavy(work: Plan, heavy: bool) -> None:
    assert (rendering_s(work) > HEAVY_S) is heavy


def test_a_decoder_that_shrinks_is_cheaper() -> None:
    assert rendering_s(plan("400x,format=jpg")) < rendering_s(plan("3000x,format=jpg"))
    assert rendering_s(plan("400x,format=jpg", "jpg")) < rendering_s(plan("400x,format=jpg", "png"))


def test_lossless_is_dearer_where_the_encoder_takes_its_time() -> None:
    assert rendering_s(plan("1200x,format=webp,lossless=true")) > rendering_s(plan("1200x,format=webp"))
    assert rendering_s(plan("1200x,format=png,lossless=true")) == rendering_s(plan("1200x,format=png"))


@given(
    st.sampled_from(READABLE),
    st.sampled_from(WRITABLE),
    st.integers(1, 8000),
    st.integers(1, 8000),
    st.integers(1, 20),
)
def test_more_frames_or_pixels_never_cost_less(
    source: str, result: str, width: int, height: int, frames: int
) -> None:
    text = f"format={result}"
    small = rendering_s(plan(text, source, width, height, frames))
    assert small > 0
    assert rendering_s(plan(text, source, 2 * width, height, frames)) >= small
    if by_name(source).animates:
        assert rendering_s(plan(text, source, width, height, 2 * frames)) >= small
    assert verifying_s(source, 2 * width) > verifying_s(source, width)
