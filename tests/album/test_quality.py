"""The measured quality is 1.0 for equal pictures, and falls with the likeness."""

from __future__ import annotations

import numpy as np
import pytest

from fsmount.album.quality import Quality, measure
from tests.support.photos import scene


def test_the_same_is_perfect() -> None:
    plane = scene(1, 70, 50)[:, :, 0]
    assert measure(plane, plane) == Quality(1.0, 99.0)


def test_noise_costs_as_much_as_there_is() -> None:
    plane = scene(1, 160, 120)[:, :, 0]
    rng = np.random.default_rng(1)
    found = []
    for strength in (2, 6, 18):
        noisy = plane + rng.normal(0, strength, plane.shape)
        found.append(measure(plane, noisy.clip(0, 255).astype(np.uint8)))
    assert found[0].ssim > found[1].ssim > found[2].ssim
    assert found[0].psnr == pytest.approx(20 * np.log10(255 / 2), abs=1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (7, 5), (9, 8)])
def test_small_and_thin_planes(shape: tuple[int, int]) -> None:
    plane = np.full(shape, 100, np.uint8)
    assert measure(plane, plane).ssim == 1
    assert measure(plane, plane // 4).ssim < 0.9
