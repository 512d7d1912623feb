import torch

# The networks here are tiny; torch's threads would wait for each other longer than they compute, above all where
# several test processes share few cores.
torch.set_num_threads(1)
