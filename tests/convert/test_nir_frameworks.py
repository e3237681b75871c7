"""Files that sinabs, snnTorch, Norse and SpikingJelly write load, and give the spikes of the nets themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spikeport.convert import simulate
from spikeport.convert.errors import UnsupportedLayerError
from spikeport.convert.exchange.nir_in import load_nir, read_nir

from ..shared import SHARED  # noqa: TID252
from .frameworks import FRAMEWORKS, INPUT_SHAPE, of_spikingjelly

WEIGHTS = SHARED / "weights"


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_spikes_are_those_of_the_framework(name: str, tmp_path: Path) -> None:
    given = FRAMEWORKS[name](tmp_path / "net.nir")
    found = read_nir(given.path)
    assert found.net.input_shape == INPUT_SHAPE
    trace = simulate(found.net, given.raster)
    np.testing.assert_array_equal(trace.output[:, 0], given.spikes)
    assert given.spikes.sum() > 10
    assert all(count.sum() > 0 for count in trace.counts)


def test_a_step_of_another_length_must_be_named(tmp_path: Path) -> None:
    given = of_spikingjelly(tmp_path / "net.nir", dt_s=1e-3)
    with pytest.raises(UnsupportedLayerError, match=r"its r of 1000 is one over a time step. Try dt_s=0.001"):
        load_nir(given.path)
    trace = simulate(load_nir(given.path, dt_s=1e-3), given.raster)
    np.testing.assert_array_equal(trace.output[:, 0], given.spikes)


def test_a_reset_to_zero_is_said(tmp_path: Path) -> None:
    found = read_nir(of_spikingjelly(tmp_path / "net.nir").path)
    details = [finding.detail for finding in found.findings if finding.op == "IF"]
    assert len(details) == 2
    assert all("keeps what is left over the threshold" in detail for detail in details)


def _shared(name: str) -> Path:
    if not (WEIGHTS / name).is_file():
        pytest.skip("needs the shared data beside the repository")
    return WEIGHTS / name


def test_a_file_of_the_nir_paper_with_leaky_neurons_needs_the_users_word() -> None:
    path = _shared("nir_lif_norse.nir")
    with pytest.raises(UnsupportedLayerError, match=r"node '1' \(LIF\): its potential leaks .* of 0.0025 s"):
        load_nir(path)
    found = read_nir(path, replace=("lif=if",))
    assert found.net.input_shape == (1, 1, 1)
    assert [layer.threshold for layer in found.net.layers] == [pytest.approx(0.1 / (1e-4 / 0.0025))]
    assert "without its leak" in next(finding.detail for finding in found.findings if finding.op == "LIF")


def test_a_file_of_the_nir_paper_with_recurrence_is_refused() -> None:
    with pytest.raises(UnsupportedLayerError, match=r"recurrent: 'lif1.w_rec' -> 'lif1.lif' -> 'lif1.w_rec'"):
        load_nir(_shared("braille_noDelay_bias_zero.nir"))
