"""Doctor: tells what is there, finds what is broken, and keeps private paths to itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from videogender import __version__, doctor
from videogender.cli.main import main


def test_extras_are_those_of_the_package() -> None:
    assert {"onnxruntime", "openvino", "ray", "starlette"} <= set(doctor._optional())
    assert "pytest" not in doctor._optional()


def test_doctor_tells_what_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = {f["topic"]: f for f in json.loads(capsys.readouterr().out)}
    assert findings["videogender"]["text"] == __version__
    assert "libx264" in findings["encoders"]["text"]
    assert "lite, cpu" in findings["test: network"]["text"]
    assert "10 frames" in findings["test: encode and decode"]["text"]


def test_a_broken_part_is_found_and_the_others_are_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home of somebody"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("VIDEOGENDER_CACHE", str(home / "cache"))
    (home / "cache" / "weights").mkdir(parents=True)
    (home / "cache" / "weights" / "mine.safetensors").write_bytes(b"not weights")

    def broken() -> str:
        raise RuntimeError(f"{home}/model: no such thing")

    monkeypatch.setattr(doctor, "_test_network", broken)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if "FAIL" in line]
    assert [line.split()[1:3] for line in failed] == [["weights:", "mine"], ["test:", "network"]]
    assert "~/model: no such thing" in failed[1]
    assert not any("somebody" in line for line in lines)
    assert any("test: encode and decode" in line and " ok " in line for line in lines)
