"""The recipe of training: its example file, overrides and messages."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from videogender.errors import ConfigError
from videogender.training.settings import (
    TrainSettings,
    differences,
    flat,
    keys,
    read_recipe,
    rule_of,
    settings_of,
    with_values,
)

RECIPE = Path(__file__).parents[1] / "configs" / "train.yaml"


def test_example_is_complete_and_holds_the_defaults() -> None:
    values = with_values(read_recipe(RECIPE))
    assert set(values) == set(keys())
    assert values["minutes"] == values["steps"] == 0
    assert settings_of(values | {"steps": 7}) == TrainSettings(steps=7)


def test_settings_survive_json_and_yaml(tmp_path: Path) -> None:
    values = with_values({"minutes": 2, "crops.mosaic_grids": "[1, 5]", "learning_rate": "3e-4"})
    settings = settings_of(values)
    assert settings.crops.mosaic_grids == (1, 5)
    assert settings.learning_rate == 3e-4
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(flat(settings)))
    assert settings_of(with_values(read_recipe(tmp_path / "a.yaml"))) == settings


def test_defaults_lie_within_their_rules() -> None:
    for key, value in flat(TrainSettings(steps=1)).items():
        values = value if isinstance(value, list) else [value]
        assert rule_of(key).help
        assert all(rule_of(key).admits(v) for v in values), key


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bach": 4}, "unknown key bach; did you mean batch?"),
        ({"mosaic_share": 0.1}, "unknown key mosaic_share; did you mean crops.mosaic_share?"),
        ({"batch": "many"}, "batch should be a whole number (1 to 65536), got 'many'"),
        ({"batch": 1.5}, "batch should be a whole number"),
        ({"batch": True}, "batch should be a whole number"),
        ({"batch": 0}, "batch should be a whole number (1 to 65536), got 0"),
        ({"ema": 1.5}, "ema should be a number (0 to 1), got 1.5"),
        ({"optimizer": "adam"}, "optimizer should be a word (adamw or sgd), got 'adam'"),
        ({"crops.native_zoom": [1]}, "crops.native_zoom should be 2 numbers"),
        ({"crops.mosaic_grids": []}, "crops.mosaic_grids should be a list of whole numbers"),
        ({"crops.mosaic_grids": [1, 99]}, "got [1, 99]"),
        ({"crops": None}, "unknown key crops; did you mean crops."),
    ],
)
def test_bad_values_are_explained(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_values(values, source="mine")
    assert str(caught.value).startswith("mine: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("length", [{}, {"minutes": 1.0, "steps": 1}])
def test_length_is_given_once(length: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="either --minutes or --steps"):
        TrainSettings(**length)  # type: ignore[arg-type]


def test_odd_sides_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 32, got 100"):
        TrainSettings(steps=1, side=100)


@pytest.mark.parametrize(("side", "batch"), [(128, 1), (64, 4), (32, 7)])
def test_batches_without_variance_are_refused(side: int, batch: int) -> None:
    with pytest.raises(ConfigError, match="is too small for side"):
        TrainSettings(steps=1, side=side, batch=batch)
    TrainSettings(steps=1, side=side, batch=batch + 4)


def test_optimiser_decides_what_is_not_given() -> None:
    assert TrainSettings(steps=1).highest_rate == 2.5e-3
    assert TrainSettings(steps=1, optimizer="sgd").highest_rate == 1e-2
    assert TrainSettings(steps=1, optimizer="sgd").decay == 5e-4
    assert TrainSettings(steps=1, optimizer="sgd", learning_rate=0.1).highest_rate == 0.1


def test_differences_name_what_changed() -> None:
    one, other = flat(TrainSettings(steps=1)), flat(TrainSettings(steps=2, batch=8))
    assert differences(one, one) == []
    assert differences(one, other) == ["steps 1, not 2", "batch 16, not 8"]


@pytest.mark.parametrize("text", ["- 1\n", "a: [\n"])
def test_bad_files_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        read_recipe(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"b\.yaml"):
        read_recipe(tmp_path / "b.yaml")
