"""Public DVS-gesture weights on real gestures: load, convert, place in two ways, run on the emulator.

The recordings (DVS128 Gesture, IBM, CC BY 4.0) and the weights (sinabs, Apache-2.0) are third party and not shipped.
"""

from shared_data import shared_data

from spikeport.convert import convert
from spikeport.deploy import Emulator, classify, compile_program, plan
from spikeport.models import gesture_cnn, gestures, load_weights
from spikeport.models.console import show, table

MANUAL_ORDER = (0, 1, 2, 7, 4, 5, 6, 3, 8)


def main() -> None:
    folder = shared_data()
    cnn = gesture_cnn()
    load_weights(cnn, folder / "weights" / "sinabs_dvs_gesture_params.pt")
    recordings = gestures(folder / "dvs128_gesture")
    net = convert(cnn, (2, 128, 128)).net  # scales as trained: threshold 1, lower bound -1
    for order in ("auto", MANUAL_ORDER):
        planned = plan(net, "speck2fdevkit", layer_order=order)
        print(f"layer order {order}: fits {planned.fits}, cores {[use.core.core for use in planned.cores if use.core]}")
    program = compile_program(net, "speck2fdevkit", layer_order=MANUAL_ORDER)
    emulator = Emulator(program)
    emulator.run(recordings.recordings[0].window(0, 1000))  # numba compiles once; keep that out of the times
    rows, n_right = [], 0
    for events, label in zip(recordings.recordings, recordings.labels, strict=True):
        outcome = emulator.run(events)
        found = classify(outcome, program)
        n_right += found == label
        names = recordings.classes[int(label)], recordings.classes[found]
        rows.append((*names, len(events), sum(outcome.synops.values()), outcome.wall_s))
    columns = ("Gesture", "Emulated chip says", "Events", "Synops", "Seconds")
    show(table("DVS128 Gesture", columns, rows), f"{n_right} of {len(rows)} right")


if __name__ == "__main__":
    main()
