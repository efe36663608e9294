"""From the start of the process to a first result: one product of 256 x 256, one number read."""
import sys

import torch

torch.set_default_device("cuda" if "--cuda" in sys.argv else "cpu")
a, b = torch.full((256, 256), 0.5), torch.full((256, 256), 0.25)
print((a @ b)[0, 0].item())
