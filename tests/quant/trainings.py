"""What the tests of training share: a text, and a recipe of eight short steps."""

import torch

from quant.methods.dlt import DltConfig
from quant.training.recipe import Losses, Recipe

TOKENS = torch.randint(0, 256, (2000,), generator=torch.Generator().manual_seed(7))
RECIPE = Recipe(
    options=DltConfig(group_size=16),
    losses=Losses(label=0.1, kl=1, dad=0.5, features=1),
    steps=8,
    warmup_steps=2,
    batch=2,
    window=16,
    learning_rate=1e-3,
)
