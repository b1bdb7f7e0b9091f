"""quant.training.recipe: what a recipe says, and what is refused."""

from pathlib import Path

import pytest

from quant.training.recipe import Losses, Recipe, load_recipe, parse_losses, recipe_names
from tern_hw.errors import TernError


def test_rate_climbs_then_falls_along_a_cosine():
    recipe = Recipe(steps=110, warmup_steps=10)
    assert recipe.rate(0) == pytest.approx(0.1)
    assert recipe.rate(9) == 1
    assert recipe.rate(35) == pytest.approx((1 + 0.5**0.5) / 2)  # a quarter of the way: cos 45°
    assert recipe.rate(60) == pytest.approx(0.5)
    assert recipe.rate(110) == pytest.approx(0)


def test_every_recipe_of_the_package_can_be_read():
    assert {"default", "tiny"} <= set(recipe_names())
    for name in recipe_names():
        assert load_recipe(name).steps > 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[training]\nsteps = 0", "steps must be positive, not 0"),
        ("[training]\nspeed = 1", "recipe must have fields among .*, not 'speed'"),
        ("[losses]\nkl = -1", "loss kl must be finite and not negative, not -1"),
        ("[losses]\nkl = 0\nfeatures = 0", "losses must have a weight above 0, not none"),
        (
            "[method]\nname = 'dlt'\nste = 'no'",
            "ste must be one of ttq, identity, clipped, not 'no'",
        ),
        ("[extra]", "recipe must have tables method, losses and training, not 'extra'"),
        ("[training]\nseed = -1", "seed must be 0 or more, not -1"),
        ("[training]\nbeta1 = 1.5", "beta1 must be at least 0 and below 1, not 1.5"),
        ("[method]\nlayers = '*'", r"layers must be a list of globs, not '\*'"),
        ("[method]\nfactor = -1", "factor must be at least 0 and below 1, not -1"),
        ("steps = ", "must be TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_in_a_sentence(text: str, sentence: str, tmp_path: Path):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(TernError, match=sentence):
        load_recipe(str(path))


def test_losses_are_read_from_a_command_line():
    losses = parse_losses(["kl=0.5", "feature_loss=mse"], Losses())
    assert (losses.kl, losses.feature_loss, losses.features) == (0.5, "mse", 10)
    with pytest.raises(TernError, match="loss must be written name=value, not 'kl'"):
        parse_losses(["kl"], Losses())
