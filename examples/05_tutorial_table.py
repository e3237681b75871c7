"""The synop table of the CNN-to-Speck tutorial for a run of its CNN, next to the exact counts, and what differs."""

import numpy as np
import torch

from spikeport.convert import Scaling, convert, count_synops, estimate_power, simulate, tutorial_table
from spikeport.convert.tables import power_tables, synop_tables, tutorial_tables
from spikeport.models import digits, digits_cnn, frames_of, train
from spikeport.models.console import show


def main() -> None:
    torch.manual_seed(0)
    cnn = digits_cnn(1, size=64)
    train(cnn, digits("train", n=300, size=64), epochs=6)
    recordings = digits("test", n=18, size=64).recordings
    net = convert(cnn, (1, 64, 64), data=frames_of(recordings, merge_polarity=True), scaling=Scaling(spikes=20.0)).net
    # One long recording of 521 bins of 10 ms, as in the tutorial.
    raster = np.concatenate([events.to_raster(10_000, n_bins=30, merge_polarity=True) for events in recordings])[:521]
    trace = simulate(net, raster, dt_us=10_000)
    report = count_synops(net, trace)
    table = tutorial_table(net, trace)
    show(*tutorial_tables(table), *synop_tables(report), *power_tables(estimate_power(report)))


if __name__ == "__main__":
    main()
