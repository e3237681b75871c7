"""Networks, their data, training and inference. Imports nothing of ours; torch only where a network is built."""
