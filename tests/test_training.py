"""The training loop: it learns, resumes exactly, averages over processes, and stops cleanly."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn_faces import write_portraits, write_scenes

from videogender.dataset import read_entries
from videogender.errors import ConfigError, OutputError, TrainingError
from videogender.evaluation.validation import ValidationData, validate
from videogender.network import checkpoints
from videogender.network.heads import AnchorNetwork
from videogender.network.lite import Lite
from videogender.opencv import opencv
from videogender.signals import exit_code_of
from videogender.training.data import ImageStore
from videogender.training.digest import digest_of
from videogender.training.engine import Progress, Trainer, build_optimizer
from videogender.training.keep import Keeper
from videogender.training.lessons import AnchorLesson
from videogender.training.metrics import MetricsLog
from videogender.training.run_folder import RunFolder
from videogender.training.sampling import quiet_opencv
from videogender.training.settings import CropSettings, TrainSettings, flat
from videogender.training.stopping import StopRequest, Stopwatch

HERE = Path(__file__).parent
CPU = torch.device("cpu")
TINY = {"side": 64, "batch": 8, "large_every": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_scenes(folder / "scenes", 24)
    write_portraits(folder / "portraits", 12)
    write_scenes(folder / "val-scenes", 8, seed=1)
    write_portraits(folder / "val-portraits", 60, seed=1)
    return folder


@pytest.fixture(scope="module")
def store(data: Path) -> ImageStore:
    return ImageStore(read_entries(data / "scenes"), read_entries(data / "portraits"))


def trainer_of(store: ImageStore, settings: TrainSettings, folder: Path, seed: int = 0) -> Trainer:
    torch.manual_seed(seed)
    network = Lite()
    return Trainer(network, AnchorLesson(network, store, settings), settings, folder)


def weights_of(trainer: Trainer) -> torch.Tensor:
    both = [*trainer.network.state_dict().values(), *trainer.average.state_dict().values()]
    return torch.cat([v.double().flatten() for v in both])


@pytest.mark.slow  # some forty steps
def test_training_lowers_the_loss_and_finds_the_faces(
    data: Path, store: ImageStore, tmp_path: Path
) -> None:
    settings = TrainSettings(
        steps=40, side=96, batch=8, large_every=0, crops=CropSettings(mosaic_share=0.4)
    )
    trainer = trainer_of(store, settings, tmp_path)
    reports: list[Progress] = []
    trainer.run(reports.append)
    assert [p.step for p in reports] == list(range(1, 41))
    assert reports[-1].share == 1.0
    assert reports[-1].seconds_left == 0
    for part in ("face", "gender"):
        values = [getattr(p, part) for p in reports]
        assert sum(values[-10:]) < 0.8 * sum(values[:10]), part
    scenes, portraits = (read_entries(data / f"val-{kind}") for kind in ("scenes", "portraits"))
    before = trainer.average.state_dict()["stem.0.conv.weight"].clone()
    found = validate(trainer.average, ValidationData(scenes, portraits), CPU)
    assert found.tall is not None
    assert found.portraits is not None
    assert found.tall.average_precision > 0.4
    assert found.portraits.accuracy > 0.9
    assert found.score == found.tall.average_precision + found.portraits.accuracy
    # what was measured is left as it was: the detector folds a copy
    assert torch.equal(trainer.average.state_dict()["stem.0.conv.weight"], before)
    # and what was saved is what was measured
    network, metadata = checkpoints.load(tmp_path / "last.safetensors")
    again = validate(network, ValidationData(scenes), CPU)
    assert again.tall is not None
    assert again.tall.average_precision == pytest.approx(found.tall.average_precision, abs=0.02)
    assert metadata["steps"] == "40"


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resumed_run_ends_where_an_uninterrupted_one_does(
    store: ImageStore, tmp_path: Path, optimizer: str
) -> None:
    settings = TrainSettings(steps=6, optimizer=optimizer, **TINY)
    whole = trainer_of(store, settings, tmp_path)
    whole.run(lambda progress: None)

    first = trainer_of(store, settings, tmp_path)
    stop = StopRequest()

    # asked after the report of step 3, heard at the next look: step 4 is the last
    with pytest.raises(KeyboardInterrupt):
        first.run(stop_after_three_of(stop), stop=stop)
    assert first.step == 4
    assert not torch.equal(weights_of(first), weights_of(whole))

    second = trainer_of(store, settings, tmp_path, seed=99)  # other first weights
    second.resume(tmp_path / "last.pt")
    assert second.step == 4
    steps: list[int] = []
    second.run(lambda progress: steps.append(progress.step))
    assert steps == [5, 6]
    assert torch.equal(weights_of(second), weights_of(whole))


def stop_after_three_of(stop: StopRequest):  # type: ignore[no-untyped-def]
    def report(progress: Progress) -> None:
        if progress.step == 3:
            stop.asked = True

    return report


def test_seed_decides_the_run(store: ImageStore, tmp_path: Path) -> None:
    ends = []
    for seed in (0, 0, 1):
        trainer = trainer_of(store, TrainSettings(steps=2, seed=seed, **TINY), tmp_path)
        trainer.run(lambda progress: None)
        ends.append(weights_of(trainer))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def forget_opencv() -> None:
    opencv.cache_clear()
    quiet_opencv.cache_clear()


def test_missing_opencv_only_costs_time(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[tuple[float, ...]] = []

    def report(progress: Progress) -> None:
        losses.append((progress.face, progress.box, progress.gender))

    for blocked in (False, True):
        if blocked:
            monkeypatch.setitem(sys.modules, "cv2", None)
        forget_opencv()
        trainer_of(store, TrainSettings(steps=1, **TINY), tmp_path).run(report)
    forget_opencv()
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0], "the other path was taken"


def test_learning_rate_rises_then_falls() -> None:
    settings = TrainSettings(steps=100, learning_rate=0.1, warmup=0.1, least_rate=0.05)
    rate = Trainer.learning_rate
    at = {s: rate(type("T", (), {"settings": settings})(), s) for s in (0, 0.05, 0.1, 0.55, 1)}
    assert 0 < at[0] < 0.001
    assert at[0.05] == pytest.approx(0.05)
    assert at[0.1] == pytest.approx(0.1)
    assert at[0.55] == pytest.approx((0.1 + 0.005) / 2)
    assert at[1] == pytest.approx(0.005)


def test_only_kernels_decay() -> None:
    network = Lite()
    for name, kind in (("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)):
        optimizer = build_optimizer(network, TrainSettings(steps=1, optimizer=name))
        assert isinstance(optimizer, kind)
        decaying, plain = (group["params"] for group in optimizer.param_groups)
        assert [group["weight_decay"] > 0 for group in optimizer.param_groups] == [True, False]
        assert all(p.ndim > 1 for p in decaying)
        assert all(p.ndim == 1 for p in plain)
        assert len(decaying) + len(plain) == len(list(network.parameters()))
    assert optimizer.param_groups[0]["momentum"] == 0.9


def test_average_follows_the_weights(store: ImageStore, tmp_path: Path) -> None:
    trainer = trainer_of(store, TrainSettings(steps=2, ema=0.5, **TINY), tmp_path)
    names = [k for k, v in trainer.network.state_dict().items() if v.is_floating_point()]
    history = []
    for _ in range(2):
        before = {k: trainer.average.state_dict()[k].clone() for k in names}
        trainer._some_steps(StopRequest())
        now = trainer.network.state_dict()
        decay = min(0.5, (1 + trainer.step) / (10 + trainer.step))
        for k in names:
            expected = before[k] * decay + now[k] * (1 - decay)
            assert torch.allclose(trainer.average.state_dict()[k], expected, atol=1e-5)
        history.append(decay)
    assert history == [pytest.approx(2 / 11), pytest.approx(3 / 12)]


def test_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    store: ImageStore, tmp_path: Path
) -> None:
    trainer = trainer_of(store, TrainSettings(steps=3, **TINY), tmp_path)
    trainer.save()
    kept = (tmp_path / "last.pt").read_bytes()
    with torch.no_grad():
        trainer.network.state_dict()["s4_mbox_loc.weight"].fill_(math.nan)
    with pytest.raises(TrainingError, match=r"not finite at step 0 \(face, box, gender: .*nan"):
        trainer.run(lambda progress: None)
    assert (tmp_path / "last.pt").read_bytes() == kept
    assert TrainingError.exit_code == 7


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint", "other"])
def test_bad_checkpoints_are_explained(
    store: ImageStore, tmp_path: Path, content: bytes | str | None
) -> None:
    trainer = trainer_of(store, TrainSettings(steps=1, **TINY), tmp_path)
    path = tmp_path / "bad.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        torch.save({"network": {}}, path)
    with pytest.raises(
        TrainingError, match=r"bad\.pt: cannot go on from this checkpoint"
    ) as caught:
        trainer.resume(path)
    assert "\n" not in str(caught.value)


def test_unwritable_folder_is_an_output_error(store: ImageStore, tmp_path: Path) -> None:
    trainer = trainer_of(store, TrainSettings(steps=1, **TINY), tmp_path / "missing")
    with pytest.raises(OutputError, match=r"last\.pt: checkpoint could not be written"):
        trainer.save()


@pytest.mark.slow  # two processes that load PyTorch
def test_two_processes_average_their_gradients(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    subprocess.run(
        [sys.executable, str(HERE / "two_processes.py"), str(data), str(out)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    for name, result in json.loads(out.read_text()).items():
        assert result["between_processes"] == 0, name
        assert result["moved"] > 0.05, name
        assert result["noted"] == [3.0] * 3, "1.5 on average in each of two steps"
        # a gradient read in the wrong memory order moves the weights about as far, elsewhere
        assert result["wrong"] < 0.01 * result["moved"], name


def progress_at(step: int, face: float) -> Progress:
    return Progress(step, step / 200, 1e-3, face, 0.5, 0.25, 100.0, 0.1, step * 0.5, 9.0)


def test_metrics_hold_means_and_rewind(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with MetricsLog(folder) as log:
        for step in range(1, 121):
            log.add(progress_at(step, float(step)))
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == [50, 100, 120]
    assert [row["face"] for row in rows] == [25.5, 75.5, 110.5]
    assert {row["kind"] for row in rows} == {"train"}
    with folder.metrics.open("a") as lines:
        lines.write('{"kind": "tra')  # what a crash leaves
    folder.rewind(100)
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == [50, 100]


def record_of(**changes: object) -> dict[str, object]:
    settings = flat(TrainSettings(steps=5)) | changes
    return {"settings": settings, "data": {"scenes": ["a"], "portraits": [], "ignore_also": []}}


def test_folder_of_a_run_is_not_overwritten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.stored() == {}
    folder.begin(record_of())
    folder.log({"step": 1})
    with pytest.raises(OutputError, match=r"holds a run already .*--resume.*--force"):
        folder.begin(record_of(batch=3))
    assert folder.stored()["settings"]["batch"] == 16
    (folder.path / "notes.txt").write_text("mine")
    folder.begin(record_of(batch=3), force=True)
    assert folder.stored()["settings"]["batch"] == 3
    assert sorted(p.name for p in folder.path.iterdir()) == ["notes.txt", "run.json"]


def test_run_goes_on_as_it_was_begun(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(record_of())
    with pytest.raises(TrainingError, match="no checkpoint to resume from"):
        folder.check_same(record_of())
    folder.checkpoint.touch()
    assert folder.check_same(record_of()) == []
    assert folder.check_same(record_of(steps=9)) == ["steps 9, not 5"]
    folder.amend(flat(TrainSettings(steps=9)))
    assert folder.stored()["settings"]["steps"] == 9
    assert folder.stored()["data"] == record_of()["data"]
    assert folder.check_same(record_of(steps=9, validate_minutes=10.0)) == []
    with pytest.raises(ConfigError, match=r"begun with batch 16, not 8; seed 0, not 1: .*--init"):
        folder.check_same(record_of(batch=8, seed=1))
    other = {**record_of(), "data": {"scenes": ["b"], "portraits": [], "ignore_also": []}}
    with pytest.raises(ConfigError, match=r"scenes \['a'\], not \['b'\]"):
        folder.check_same(other)
    folder.record.write_text("{")
    with pytest.raises(TrainingError, match=r"run\.json: cannot be read"):
        folder.check_same(record_of())


def test_a_run_goes_on_from_the_same_data_alone(data: Path, tmp_path: Path) -> None:
    scenes, portraits = read_entries(data / "scenes"), read_entries(data / "portraits")
    content = digest_of(scenes, portraits)
    folder = RunFolder(tmp_path)
    folder.begin(record_of())
    folder.check_content(content)  # an older run, which says nothing
    folder.begin({**record_of(), "content": content}, force=True)
    (tmp_path / "link").symlink_to(data)
    by_link = (read_entries(tmp_path / "link" / kind) for kind in ("scenes", "portraits"))
    folder.check_content(digest_of(*by_link))
    [first, *rest] = scenes
    face = first.faces[0]
    moved = {**face, "box": [value + 1 for value in face["box"]]}
    for changed in (
        rest,
        [*rest, first],
        [replace(first, width=first.width + 1), *rest],
        [replace(first, path=first.path.with_name("other.png")), *rest],
        [replace(first, faces=[moved, *first.faces[1:]]), *rest],
        [replace(first, faces=[{**face, "gender": None}, *first.faces[1:]]), *rest],
        [*scenes, portraits[0]],
    ):
        with pytest.raises(ConfigError, match="begun with other pictures, boxes or labels"):
            folder.check_content(digest_of(changed, portraits))
    with pytest.raises(ConfigError, match="begun with other pictures, boxes or labels"):
        folder.check_content(digest_of([*scenes, portraits[0]], portraits[1:]))


def test_a_best_of_other_data_is_not_the_one_to_beat(data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    portraits = read_entries(data / "val-portraits")

    def keeper(count: int) -> Keeper:
        return Keeper(folder, ValidationData([], portraits[:count]), CPU, {})

    torch.manual_seed(0)
    network: AnchorNetwork = Lite().eval()  # finds nothing: a score of 0
    assert (keeper(4).best, keeper(4).forgets) == (-math.inf, False)
    keeper(4)(network, 10)
    assert (keeper(4).best, keeper(4).forgets) == (0.0, False)
    assert (keeper(3).best, keeper(3).forgets) == (-math.inf, True)
    keeper(3)(network, 20)
    assert (keeper(3).best, keeper(4).best) == (0.0, -math.inf)
    best, metadata = checkpoints.load(folder.best)
    assert metadata["steps"] == "20"
    del metadata["chosen_by"]  # as older weights are
    checkpoints.save(best, folder.best, metadata)
    assert (keeper(4).best, keeper(4).forgets) == (0.0, False)


def test_best_weights_are_kept_and_survive_a_resume(data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    validation = ValidationData([], read_entries(data / "val-portraits")[:4])
    told: list[tuple[int, bool]] = []

    def keeper() -> Keeper:
        return Keeper(
            folder, validation, CPU, {"data": "x"}, lambda v, step, best: told.append((step, best))
        )

    torch.manual_seed(0)
    network: AnchorNetwork = Lite().eval()  # finds nothing: a score of 0
    first = keeper()
    first(network, 10)
    first(network, 20)  # not better
    again = keeper()
    again(network, 30)
    assert told == [(10, True), (20, False), (30, False)]
    _, metadata = checkpoints.load(folder.best)
    assert metadata["steps"] == "10"
    assert metadata["data"] == "x"
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [(r["kind"], r["step"], r["best"]) for r in rows] == [
        ("validation", 10, True),
        ("validation", 20, False),
        ("validation", 30, False),
    ]
    assert rows[0]["gender_portraits_found"] == 0.0
    assert "gender_portraits" not in rows[0], "nothing found, nothing right or wrong"
    _, temperature = again.finish()
    assert temperature == 1.0  # nothing to fit on
    _, metadata = checkpoints.load(folder.best)
    assert float(metadata["temperature"]) == 1.0
    assert json.loads(metadata["figures"])["gender_portraits_faces"] == 4


def test_stop_request_ends_interruptible_work_alone() -> None:
    stop = StopRequest()
    with stop:
        os.kill(os.getpid(), 15)
        assert stop.asked
        stop.asked = False
        ended = []

        def work() -> None:
            os.kill(os.getpid(), 2)
            ended.append("not reached")

        stop.interruptible(work)
        assert stop.asked
        assert ended == []
        stop.interruptible(lambda: ended.append("nor this"))
        assert ended == []
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_request_tells_which_signal_came_first(number: int) -> None:
    def step() -> None:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGINT)
        raise KeyboardInterrupt  # as when the step is done

    with pytest.raises(KeyboardInterrupt) as caught, StopRequest(), StopRequest():
        step()
    assert exit_code_of(caught.value) == 128 + number


def test_stopwatch_adds_up_and_restarts() -> None:
    watch = Stopwatch(CPU)
    for _ in range(2):
        with watch.running():
            sum(range(100_000))
    assert 0 < watch.take() < 5
    assert watch.take() == 0
