"""Settings: files, overrides, messages, and the examples in `configs/`."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from videogender.config import (
    DetectSettings,
    Settings,
    VideoSettings,
    load_settings,
    rule_of,
    to_yaml,
    with_overrides,
)
from videogender.errors import ConfigError, ModelError, VideogenderError

CONFIGS = Path(__file__).parents[1] / "configs"
KEYS = [
    f"{section.name}.{entry.name}"
    for section in fields(Settings)
    for entry in fields(getattr(Settings(), section.name))
]


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_no_file_gives_the_defaults() -> None:
    assert load_settings(None) == Settings()


@pytest.mark.parametrize("text", ["", "# nothing\n", "detect:\n", "detect: {}\nlabel: null\n"])
def test_a_file_may_leave_everything_out(tmp_path: Path, text: str) -> None:
    assert load_settings(write(tmp_path, text)) == Settings()


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path, "detect:\n  long_side: 416\n  min_face_px: 20\nvideo: {crf: 30}\n")
    settings = load_settings(path)
    expected = Settings(
        detect=DetectSettings(long_side=416, min_face_px=20.0), video=VideoSettings(crf=30)
    )
    assert settings == expected
    assert isinstance(settings.detect.min_face_px, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "detect:\n  long_sid: 3\n",
            ":2: unknown key detect.long_sid; did you mean detect.long_side?",
        ),
        ("long_side: 640\n", ":1: unknown key long_side; did you mean detect.long_side?"),
        ("\ndetct:\n  device: cpu\n", ":2: unknown key detct; did you mean detect?"),
        ("video:\n  blur: true\n", ":2: unknown key video.blur; did you mean render.blur?"),
        (
            "zzzzzz: 1\n",
            ":1: unknown key zzzzzz; the sections are "
            "detect, track, label, render, video, zones, report, live",
        ),
        (
            "detect:\n  long_side: big\n",
            ":2: detect.long_side should be a whole number (0, or 32 to 16384), got 'big'",
        ),
        (
            "detect:\n  threads: 1.5\n",
            ":2: detect.threads should be a whole number (0 to 1024), got 1.5",
        ),
        (
            "detect:\n  threads: true\n",
            ":2: detect.threads should be a whole number (0 to 1024), got True",
        ),
        (
            "label:\n  unsure_below: 0.3\n",
            ":2: label.unsure_below should be a number (0.5 to 1), got 0.3",
        ),
        (
            "label:\n  unsure_below: .nan\n",
            ":2: label.unsure_below should be a number (0.5 to 1), got nan",
        ),
        ("render:\n  blur: 1\n", ":2: render.blur should be true or false, got 1"),
        (
            "render:\n  style: boxes\n",
            ":2: render.style should be box, corners or none, got 'boxes'",
        ),
        (
            "zones:\n  zone:\n    - door:0,0;1,1;2,0\n    - hall:1,1\n",
            ":4: zones.zone: 'hall:1,1' should have three corners or more",
        ),
        (
            "zones: {line: gate}\n",
            ":1: zones.line should be a list, got 'gate'",
        ),
        ("detect: 5\n", ":1: detect should hold `key: value` lines"),
        ("- detect\n", ":1: the file should hold `key: value` lines"),
        (
            "video:\n  crf: 20\n  crf: 21\n",
            ":3: video.crf is set twice (first at {path}:2)",
        ),
        ("detect: [1\n", ":2: not valid YAML: expected ',' or ']', but got '<stream end>'"),
    ],
)
def test_a_wrong_file_is_one_line_that_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert str(caught.value) == f"{path}{message.format(path=path)}"


def test_zones_come_as_texts_or_mappings(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "zones:\n  zone:\n    - {name: a b, points: [[0, 10%], [5.50, 1], '7,7']}\n"
        "    - 'b: 0,0; 50%,0 ;50%,.5 ;'\n  line:\n    - {name: c, points: '0,0;1,1'}\n",
    )
    zones = load_settings(path).zones
    assert zones.zone == ("a b:0,10%;5.5,1;7,7", "b:0,0;50%,0;50%,0.5")
    assert zones.line == ("c:0,0;1,1",)
    changed = with_overrides(load_settings(path), {"zones.zone": ["d:0,0;1,0;1,1"]})
    assert (changed.zones.zone, changed.zones.line) == (("d:0,0;1,0;1,1",), zones.line)
    with pytest.raises(ConfigError, match=r"^--zone: 'd' should be NAME:x1,y1;x2,y2;x3,y3;… in"):
        with_overrides(Settings(), {"zones.zone": ["d"]}, as_flags=True)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read this file: No such file"):
        load_settings(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot read this file: Is a directory"):
        load_settings(tmp_path)
    binary = tmp_path / "clip.mp4"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_settings(binary)
    binary.write_bytes(b"a: \x00\x01")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_settings(binary)


def test_an_unknown_model_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r":2: detect\.model should be lite or vgg16, got 'lit'"):
        load_settings(write(tmp_path, "detect:\n  model: lit\n"))


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    path = write(tmp_path, "detect:\n  model: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        load_settings(path)


def test_overrides_win_over_the_file_and_none_changes_nothing(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, "detect: {long_side: 416, threads: 3}\n"))
    changed = with_overrides(
        settings,
        {"detect.long_side": 0, "detect.threads": None, "render.labels": False},
    )
    assert (changed.detect.long_side, changed.detect.threads) == (0, 3)
    assert not changed.render.labels
    assert settings.render.labels, "the original is left as it was"


def test_overrides_from_flags_are_named_as_flags() -> None:
    with pytest.raises(ConfigError) as caught:
        with_overrides(Settings(), {"detect.long_side": 7}, as_flags=True)
    assert str(caught.value) == "--long-side should be a whole number (0, or 32 to 16384), got 7"
    with pytest.raises(ConfigError, match=r"^unknown key detect.longside; did you mean"):
        with_overrides(Settings(), {"detect.longside": 7})


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_is_explained_and_its_default_is_allowed(key: str) -> None:
    section, _, name = key.partition(".")
    rule = rule_of(key)
    assert rule.help
    assert rule.admits(getattr(getattr(Settings(), section), name))


def values_of(key: str) -> st.SearchStrategy[object]:
    """Draw allowed values of a setting from what its rule says."""
    section, _, name = key.partition(".")
    rule, default = rule_of(key), getattr(getattr(Settings(), section), name)
    if rule.item is not None:
        points = {"zones.zone": "0,0;50%,10;1.5,99%", "zones.line": "-3,0%;40,80"}[key]
        return st.lists(st.from_regex(r"[\w -]{1,8}\w", fullmatch=True)).map(
            lambda names: [f"{name.strip()}:{points}" for name in names]
        )
    if rule.choices:
        return st.sampled_from(rule.choices)
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int) or key == "track.every":
        least, most = int(rule.least or 0), None if rule.most is None else int(rule.most)
        return st.integers(least, most)
    if isinstance(default, float) or rule.most is not None:
        return st.floats(rule.least, rule.most, allow_nan=False, allow_infinity=False)
    return st.text()


@settings_of_hypothesis(max_examples=40, deadline=None)
@given(st.fixed_dictionaries({key: values_of(key) for key in KEYS}))
def test_config_show_round_trips(values: dict[str, object]) -> None:
    settings = with_overrides(Settings(), values)
    text = to_yaml(settings)
    found = yaml.safe_load(text)  # an independent reading of the same text
    for key, value in values.items():
        section, _, name = key.partition(".")
        assert found[section][name] == value


def test_config_show_is_a_configuration_file(tmp_path: Path) -> None:
    settings = with_overrides(
        Settings(), {"detect.weights": "a: #b.safetensors", "detect.face_threshold": 1e-5}
    )
    assert load_settings(write(tmp_path, to_yaml(settings))) == settings


@pytest.mark.parametrize("name", ["default", "accurate", "fast"])
def test_examples_are_complete_and_commented(name: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(text)
    assert [f"{section}.{key}" for section in found for key in found[section]] == KEYS
    lines = text.splitlines()
    for above, line in pairwise(lines):
        if line.startswith("  ") and not line.lstrip().startswith("#"):
            assert above.lstrip().startswith("#"), f"{line.strip()} has no comment"
    load_settings(CONFIGS / f"{name}.yaml")


def test_the_default_example_holds_the_defaults() -> None:
    assert load_settings(CONFIGS / "default.yaml") == Settings()


def test_the_other_examples_differ_as_their_names_say() -> None:
    fast, accurate = load_settings(CONFIGS / "fast.yaml"), load_settings(CONFIGS / "accurate.yaml")
    assert (fast.detect.long_side, accurate.detect.long_side) == (416, 1280)


def test_errors_share_one_base() -> None:
    assert issubclass(rule_of("detect.model").error, VideogenderError)
