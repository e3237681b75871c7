"""The whole path in Python: a CNN in, a chip program out, spikes from the emulator, synops and power."""

import torch

from spikeport.convert import convert, count_synops, estimate_power
from spikeport.deploy import classify, compile_program, plan, run, save_program
from spikeport.models import digits, digits_cnn, frames_of, train

torch.manual_seed(0)
cnn = digits_cnn()
train(cnn, digits("train", n=500), epochs=10)
net = convert(cnn, (2, 34, 34), data=frames_of(digits("train", n=200).recordings)).net
print(plan(net, "speck2fdevkit"))
program = compile_program(net, "speck2fdevkit")
save_program(program, "digits-program.safetensors")
held_out = digits("test", n=20)
for events, label in zip(held_out.recordings, held_out.labels, strict=True):
    print(f"{label} -> {classify(run(program, events), program)}")
report = count_synops(net, held_out.recordings[0])
print(f"{report.total:,} synops, {estimate_power(report).mid_w * 1e3:.2f} mW (estimated)")
