"""A weak third-party N-MNIST CNN: CNN, spiking net and emulated chip must agree, whatever the accuracy.

The recordings (N-MNIST, Orchard et al., CC BY-SA 4.0) and the weights (MIT) are third party and not shipped.
"""

from shared_data import shared_data

from spikeport.convert import Scaling, convert
from spikeport.deploy import compare, compile_program
from spikeport.models import frames_of, load_weights, nmnist, strided_digits_cnn
from spikeport.models.console import show, table


def main() -> None:
    folder = shared_data()
    cnn = strided_digits_cnn()
    load_weights(cnn, folder / "weights" / "speckdevkit_nmnist_cnn.npz")
    train_set, test_set = nmnist(folder / "nmnist", "train"), nmnist(folder / "nmnist", "test")
    frames = frames_of(train_set.recordings[:256])
    # No lower bound: the chip clamps after every event and would forget inhibition that the sums keep.
    net = convert(cnn, (2, 34, 34), data=frames, scaling=Scaling(spikes=40.0), v_min=None).net
    program = compile_program(net, "speck2fdevkit")
    rows = []
    for name, data in (("1,000 training recordings", train_set), ("50 test recordings", test_set)):
        found = compare(cnn, net, program=program, recordings=data.recordings, labels=data.labels)
        rows.append((name, *(f"{one.share:.1%}" for one in found.accuracies)))
    show(table("Public N-MNIST CNN", ("On", "CNN", "Spiking net", "Emulated chip"), rows))


if __name__ == "__main__":
    main()
