"""Segment 1 of tmp.py: imports, device and seed. The candidate's code may rely on these names."""

import os
import random
import sys

import numpy as np
import torch
from diffusers import DiffusionPipeline as _SpeedtrapPreload  # its import takes seconds

SEED = 42
device = "cuda" if torch.cuda.is_available() else "cpu"
