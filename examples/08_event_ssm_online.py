"""The event state-space model online: events per second by engine and chunk, latencies, and a gesture as it goes by.

The model has the published shape of dvs/small and random weights: no trained ones are public. Its decisions mean
nothing; what they cost does. With --toy, a small model first learns to tell which way a dot moves, and its decisions do
mean something.
The recording (DVS128 Gesture, IBM, CC BY 4.0) is third party and not shipped; without it events are drawn at random.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from spikeport.models import ConfidenceTrace, Events, StreamSettings, concatenate, evaluate, read_events, stream
from spikeport.models.console import show, table
from spikeport.models.event_ssm import TOY, EventSSM, SsmPredictor, config, moving_dots, recipe, train_ssm
from spikeport.models.sources import Pieces

SHARED = Path(os.environ.get("SPIKEPORT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
CHUNKS = 16, 256, 1024, 4096


def measure(module: EventSSM, n_events: int) -> None:
    """Show events per second of each engine, by chunk, and what one event takes."""
    rng = np.random.default_rng(0)
    tokens, intervals_us = rng.integers(0, module.config.vocabulary, n_events), np.full(n_events, 1000)
    carried, reset = module.online(), module.online("reset")

    def form(tokens: np.ndarray, intervals_us: np.ndarray) -> None:
        with torch.no_grad():
            module(torch.from_numpy(tokens)[:, None], torch.from_numpy(intervals_us * 1e-3)[:, None])

    engines: dict[str, tuple[Callable[..., object], int]] = {
        "online, state carried": (carried.feed, n_events),
        "online, reset every chunk": (reset.feed, n_events),
        "training form in torch, reset": (form, min(n_events, 1 << 14)),
    }
    rows = []
    for name, (feed, n) in engines.items():
        for chunk in CHUNKS:
            feed(tokens[:chunk], intervals_us[:chunk])
            started = time.perf_counter()
            for first in range(0, n, chunk):
                feed(tokens[first : first + chunk], intervals_us[first : first + chunk])
            rows.append((name, chunk, f"{n / (time.perf_counter() - started):,.0f}"))
    show(table(f"dvs/small, random weights, {n_events:,} events", ("Engine", "Chunk", "Events/s"), rows))
    walls_us = []
    for k in range(min(n_events, 1 << 14)):
        started = time.perf_counter()
        carried.feed(tokens[k : k + 1], intervals_us[k : k + 1])
        walls_us.append((time.perf_counter() - started) * 1e6)
    shares = (50, 90, 99, 100)
    show(
        table(
            "One event", ("Percentile", "us"), list(zip(shares, np.percentile(walls_us, shares).round(1), strict=True))
        )
    )


def follow(predictor: SsmPredictor, events: Events, plot: Path) -> None:
    """Stream a recording, and plot the confidence in each class over time."""
    trace = ConfidenceTrace()
    settings = StreamSettings(every_us=None, every_events=predictor.module.config.downsampling)
    found = stream(predictor, Pieces([events]), settings=settings, on_decision=trace.add)
    trace.draw(plot, classes=predictor.classes, title=predictor.name)
    latency = ", ".join(f"{name} {value:.2f}" for name, value in found.latency_ms.items() if value is not None)
    counts = f"{found.n_events:,} events, {found.n_decisions} decisions, {found.events_per_s:,.0f} events/s"
    print(f"{predictor.name}: {counts}")
    print(f"latency in ms, of events that all came at once: {latency}")
    print(f"wrote {plot.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1 << 18)
    parser.add_argument("--toy", action="store_true", help="train the toy model, and follow it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    module = EventSSM(config("dvs/small", classes=10)).eval()
    measure(module, given.events)
    gesture = SHARED / "dvs128_gesture" / "1.bs2"
    if gesture.is_file():
        events = read_events(gesture)
    else:
        print("No recording of a gesture here: events at random places stand for one.")
        rng, n = np.random.default_rng(1), 1 << 15
        x, y, p = rng.integers(0, 128, n), rng.integers(0, 128, n), rng.integers(0, 2, n)
        events = Events(x, y, p, np.sort(rng.integers(0, 1_000_000, n)), (128, 128))
    untrained = SsmPredictor(module, name="dvs/small with random weights")
    follow(untrained, events, Path("event_ssm_random.svg"))
    untrained.save("event_ssm.safetensors")
    print("Next: spikeport stream event_ssm.safetensors --input RECORDING --every 256")
    if given.toy:
        toy = EventSSM(TOY)
        result = train_ssm(toy, moving_dots(512), recipe("toy"))
        fresh = moving_dots(200, seed=1)
        trained = SsmPredictor(toy, fresh.classes, name="toy model, trained on moving dots")
        losses = f"loss {result.history[0][0]:.3f} to {result.history[-1][0]:.4f} in {result.wall_s:.0f} s"
        print(f"{losses}; {evaluate(trained, fresh)['accuracy']:.1%} of 200 fresh recordings right")
        follow(trained, concatenate(fresh.recordings[:8], gap_us=100_000), Path("event_ssm_toy.svg"))


if __name__ == "__main__":
    main()
