"""The second stage: its geometry, what it is shown and taught, and its word in the detector."""

from __future__ import annotations

import copy
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from coloured import box_of, coloured_lite, scene
from drawn_faces import write_portraits, write_scenes
from PIL import Image
from scipy.optimize import minimize
from test_detector import SpotNetwork

from videogender.config import DetectSettings
from videogender.dataset import Entry, read_entries
from videogender.detector import Detector
from videogender.errors import ConfigError, TrainingError
from videogender.evaluation.mixing import fit_gender_mix, fit_logistic
from videogender.evaluation.validation import ValidationData
from videogender.network import checkpoints
from videogender.network.lite import Lite
from videogender.network.second_stage import (
    FACE_PX,
    SIDE_PX,
    SecondOpinion,
    SecondStage,
    proposal_in_crop,
    refined_boxes,
)
from videogender.training import keep
from videogender.training.candidates import Candidates, faces_of, proposals_of
from videogender.training.closeups import CloseUpPools, blended, plan_closeups
from videogender.training.data import ImageStore
from videogender.training.engine import Trainer
from videogender.training.guesses import Guesses
from videogender.training.keep import Keeper
from videogender.training.launch import TrainData, train
from videogender.training.lessons import CloseUpLesson
from videogender.training.loss import second_stage_losses
from videogender.training.run_folder import RunFolder
from videogender.training.sampling import sample_pixels
from videogender.training.settings import CloseUpSettings, LossSettings, TrainSettings
from videogender.training.stopping import StopRequest

STILL = CloseUpSettings(shift=0, size=0, rotation_degrees=0, aspect=0, coarse_share=0)
MOST_PARAMETERS = 1_500_000  # both stages of lite together


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("looks")
    write_scenes(folder / "scenes", 16)
    write_portraits(folder / "portraits", 12)
    return folder


@pytest.fixture(scope="module")
def store(data: Path) -> ImageStore:
    return ImageStore(read_entries(data / "scenes"), read_entries(data / "portraits"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the network --------------------------------------------------------------------------------


def test_both_looks_keep_to_the_size_that_was_promised() -> None:
    network = Lite()
    network.second_stage = SecondStage()
    assert sum(p.numel() for p in network.parameters()) <= MOST_PARAMETERS


def test_folding_changes_no_answer() -> None:
    torch.manual_seed(0)
    look = SecondStage()
    for _ in range(3):  # statistics that are not those of a new network
        look(torch.randn(8, 3, SIDE_PX, SIDE_PX))
    look.eval()
    pixels = torch.rand(5, 3, SIDE_PX, SIDE_PX) * 255 - 110
    with torch.inference_mode():
        before = look(pixels * look.pixel_scale)
        look.fuse()
        after = look(pixels * look.pixel_scale)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_refined_boxes_move_by_parts_of_the_longer_side() -> None:
    proposals = torch.tensor([[10.0, 20.0, 40.0, 80.0]])  # 30 wide, 60 high
    deltas = torch.tensor([[0.5, -0.25, math.log(0.5), 0.0]])
    # centre 25, 50 moves by 30, -15; 30 wide, 60 high
    torch.testing.assert_close(refined_boxes(deltas, proposals), torch.tensor([[40.0, 5, 70, 65]]))


# --- what it is shown -----------------------------------------------------------------------------


def test_close_ups_have_the_proposal_in_their_middle_and_the_face_where_it_is(
    store: ImageStore,
) -> None:
    table = faces_of(store)
    crops, targets = plan_closeups(store, table, STILL, generator())
    wh = table.box[:, 2:] - table.box[:, :2]
    expected = wh / wh.amax(1, keepdim=True) * FACE_PX
    torch.testing.assert_close(targets.box[:, 2:] - targets.box[:, :2], expected)
    torch.testing.assert_close(
        (targets.box[:, 2:] + targets.box[:, :2]) / 2, torch.full((len(table), 2), SIDE_PX / 2)
    )
    pixels = sample_pixels(store, crops, SecondStage.pixel_mean_bgr)
    middle = pixels[:, :, SIDE_PX // 2, SIDE_PX // 2].tolist()
    assert middle == [  # BGR: a woman is a red oval, a man a blue one
        pytest.approx((120, 120, 255) if gender == 0 else (255, 120, 120), abs=40)
        for gender in table.gender.tolist()
    ]


def test_boxes_follow_the_face_through_shift_size_mirror_turn_and_stretch(
    store: ImageStore,
) -> None:
    table = faces_of(store)
    table = table.select(table.image < len(store.scene_ids))
    table = table.select(torch.arange(len(table)).repeat(8))
    settings = CloseUpSettings(
        shift=0.08, size=0.15, rotation_degrees=4, aspect=0.2, coarse_share=0
    )
    crops, targets = plan_closeups(store, table, settings, generator(3))
    pixels = sample_pixels(store, crops, (0.0, 0.0, 0.0))
    bright = pixels.amax(1) > 200
    step = torch.arange(SIDE_PX) + 0.5
    whole = (targets.box[:, :2] > 4).all(1) & (targets.box[:, 2:] < SIDE_PX - 4).all(1)
    assert whole.sum() > 100
    errors = []
    for picture, box in zip(bright[whole], targets.box[whole], strict=True):
        columns, rows = step[picture.any(0)], step[picture.any(1)]
        seen = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()])
        errors.append((seen - box).abs().max())
    # neighbours may lie in the crop as well, and what is turned is a little larger
    assert torch.stack(errors).median() < 2.0


def test_coarse_pictures_are_read_for_some(store: ImageStore) -> None:
    table = faces_of(store)
    all_coarse = CloseUpSettings(coarse_share=1.0, least_seen_px=10.0)
    crops, _ = plan_closeups(store, table.select(torch.arange(len(table)).repeat(8)), all_coarse,
                          generator())  # fmt: skip
    sides = (table.box[:, 2:] - table.box[:, :2]).amax(1).repeat(8)
    assert (crops.level > 0).any()
    # a face keeps about the least size; sizes vary by some tenths
    assert (sides / 2 ** crops.level.float() > 10.0 * 0.6).all()


def test_proposals_are_sorted_by_what_they_hold(store: ImageStore) -> None:
    """Against a slow IoU; those in doubt are left out, and every one lies in its own picture."""
    first = int(store.scene_ids[0])
    face = store.boxes[int(store.first_face[first])]
    side = float(face[2] - face[0])
    offers = torch.stack([
        face,
        face + torch.tensor([1.0, 0, 1, 0]) * side * 0.2,  # IoU 2/3
        face + torch.tensor([1.0, 0, 1, 0]) * side * 0.5,  # IoU 1/3: in doubt
        torch.tensor([0.0, 0.0, 5.0, 5.0]) - 40.0,
    ])  # fmt: skip

    def propose(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return offers.numpy(), np.array([0.9, 0.8, 0.7, 0.2], np.float32)

    found = proposals_of(store, propose, level=0, random_boxes=5, generator=generator())
    mine = found.select((found.image == first) & ~found.logit.isnan())
    assert mine.holds_face.tolist() == [True, True, False]
    torch.testing.assert_close(mine.face[0], face)
    torch.testing.assert_close(mine.logit.sigmoid(), torch.tensor([0.9, 0.8, 0.2]))
    drawn = found.select(found.logit.isnan())
    size = store.size_wh[drawn.image, 0].float()
    assert (drawn.box >= 0).all()
    assert (drawn.box[:, 2:] <= size + 1e-3).all()
    for row in range(len(drawn)):
        index = int(drawn.image[row])
        faces = store.boxes[int(store.first_face[index]) : int(store.first_face[index + 1])]
        best = max(slow_iou(drawn.box[row].tolist(), f.tolist()) for f in faces)
        assert (best >= 0.4) if drawn.holds_face[row] else (best < 0.25)


def slow_iou(a: list[float], b: list[float]) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0) * max(high, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (areas - shared)


# --- how it is taught -----------------------------------------------------------------------------


def pools_of(store: ImageStore) -> CloseUpPools:
    def nothing(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)

    return CloseUpPools(
        store, proposals_of(store, nothing, level=0, random_boxes=10, generator=generator())
    )


def test_batches_hold_their_shares_and_both_genders(store: ImageStore) -> None:
    settings = CloseUpSettings(batch=2000, portrait_share=0.3, scene_share=0.3, none_share=0.3)
    table = pools_of(store).draw(settings, generator())
    assert len(table) == 2000
    assert (~table.holds_face).sum() == 600
    scenes = len(store.scene_ids)
    portraits = table.holds_face & (table.image >= scenes)
    assert portraits.sum() >= 600
    of_scenes = table.select(torch.arange(600, 1200))  # the second pool
    assert (of_scenes.image < scenes).all()
    assert 0.42 < (of_scenes.gender == 0).float().mean() < 0.58


def test_it_learns_and_nothing_else_changes(store: ImageStore, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Lite().requires_grad_(False)
    network.second_stage = SecondStage()
    before = copy.deepcopy(network.state_dict())
    settings = TrainSettings(
        part="second-stage", steps=50, ema=0.9, distortion=0.2, learning_rate=3e-3,
        closeups=CloseUpSettings(batch=32),
    )  # fmt: skip
    lesson = CloseUpLesson(network.second_stage, pools_of(store), settings)
    trainer = Trainer(network, lesson, settings, tmp_path)
    losses: list[tuple[float, float, float]] = []
    trainer.run(lambda p: losses.append((p.face, p.box, p.gender)))
    first, last = np.mean(losses[:3], 0), np.mean(losses[-5:], 0)
    assert (last < 0.75 * first).all(), (first, last)
    after = network.state_dict()
    changed = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert changed
    assert all(k.startswith("second_stage.") for k in changed)


@pytest.fixture(scope="module")
def two_groups(data: Path) -> ImageStore:
    portraits = read_entries(data / "portraits")
    for number, entry in enumerate(portraits):
        entry.faces[0]["race"] = "aab"[number % 3]
    return ImageStore(read_entries(data / "scenes"), portraits, group_by=("race",))


def trainer_of(store: ImageStore, folder: Path, rank: int = 0) -> Trainer:
    torch.manual_seed(0)
    network = Lite().requires_grad_(False)
    network.second_stage = SecondStage()
    settings = TrainSettings(part="second-stage", steps=5, closeups=CloseUpSettings(batch=16))
    lesson = CloseUpLesson(network.second_stage, pools_of(store), settings)
    return Trainer(network, lesson, settings, folder, rank)


def weights_of(trainer: Trainer) -> torch.Tensor:
    return torch.cat([v.double().flatten() for v in trainer.network.state_dict().values()])


def test_resumed_run_ends_where_an_uninterrupted_one_does(
    two_groups: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is noted of groups decides the next draws, here at once."""
    monkeypatch.setattr("videogender.training.closeups.SLOWLY", 0.2)
    whole = trainer_of(two_groups, tmp_path)
    whole.run(lambda progress: None)
    first = trainer_of(two_groups, tmp_path)
    stop = StopRequest()
    with pytest.raises(KeyboardInterrupt):
        first.run(lambda progress: setattr(stop, "asked", progress.step == 2), stop=stop)
    second = trainer_of(two_groups, tmp_path)
    second.resume(tmp_path / "last.pt")
    assert second.step == 3
    noted = second.lesson.state()["wrong"]
    assert not torch.equal(noted, torch.ones_like(noted))
    torch.rand(7)  # whatever else draws numbers changes nothing
    second.run(lambda progress: None)
    assert torch.equal(weights_of(second), weights_of(whole))


def test_checkpoints_from_before_resume_with_nothing_noted(
    two_groups: ImageStore, tmp_path: Path
) -> None:
    trainer_of(two_groups, tmp_path).save()
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    del state["lesson"]
    torch.save(state, tmp_path / "last.pt")
    trainer = trainer_of(two_groups, tmp_path)
    trainer.resume(tmp_path / "last.pt")
    noted = trainer.lesson.state()["wrong"]
    assert torch.equal(noted, torch.ones_like(noted))


def test_processes_drop_other_units_in_each_step(two_groups: ImageStore, tmp_path: Path) -> None:
    drawn: list[list[float]] = []
    for rank in (0, 1):
        trainer = trainer_of(two_groups, tmp_path, rank)
        look = trainer.network.second_stage
        assert look is not None
        look.dropout.register_forward_hook(lambda *given: drawn.append(torch.rand(4).tolist()))
        for _ in range(2):
            trainer._some_steps(StopRequest())
    assert len({tuple(numbers) for numbers in drawn}) == 4


def test_settling_weighs_both_looks_as_logistic_regression_does() -> None:
    draw = generator(1)
    inputs = torch.randn(400, 2, generator=draw)
    odds = inputs @ torch.tensor([1.5, -0.7]) + 0.3
    truth = torch.rand(400, generator=draw) < odds.sigmoid()
    x = np.c_[inputs.numpy(), np.ones(400)]
    sign = np.where(truth.numpy(), 1.0, -1.0)
    reference = minimize(lambda w: np.log1p(np.exp(-sign * (x @ w))).sum(), np.zeros(3)).x
    np.testing.assert_allclose(fit_logistic(inputs, truth), reference, atol=2e-3)


def test_settling_survives_looks_that_never_err() -> None:
    inputs = torch.tensor([[-3.0, -2.0], [-1.0, -5.0], [2.0, 2.0], [3.0, 1.0]])
    weights = fit_logistic(inputs, torch.tensor([False, False, True, True]))
    assert weights.isfinite().all()
    assert ((inputs @ weights[:2] + weights[2]) > 0).tolist() == [False, False, True, True]


def test_a_mix_of_genders_favours_neither() -> None:
    """Nine men in ten, told apart as well as women: what is added must not lean to men."""
    rng = np.random.default_rng(0)
    women = rng.random(4000) < 0.1
    odds = np.where(women, 1.0, -1.0) + rng.normal(0, 1, 4000)
    mix = fit_gender_mix(odds, rng.normal(0, 1, 4000), women)
    assert mix is not None
    np.testing.assert_allclose(mix, (2, 0, 0), atol=0.2)
    assert fit_gender_mix(odds[:40], odds[:40], women[:40]) is None
    assert fit_gender_mix(odds, odds, np.ones(4000, bool)) is None
    assert fit_gender_mix(odds, np.full(4000, np.nan), women) is None


@pytest.mark.parametrize(("says", "counts"), [(1.5, True), (0.0, False)])
def test_a_first_stage_that_hardly_counts_is_left_out_of_the_mix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: float, counts: bool
) -> None:
    rng = np.random.default_rng(0)
    women = rng.random(4000) < 0.5
    side = np.where(women, 1.0, -1.0)
    first, second = (side * strength + rng.normal(0, 1, 4000) for strength in (says, 1.5))

    def answers(network: Lite, *_: object) -> SimpleNamespace:
        assert network.second_stage is not None
        odds = first if network.second_stage.gender_mix[0] else second
        return SimpleNamespace(female=1 / (1 + np.exp(-odds)), is_female=women)

    monkeypatch.setattr(keep, "gender_answers", answers)
    network = Lite()
    network.second_stage = SecondStage()
    Keeper(RunFolder(tmp_path), ValidationData([], []), torch.device("cpu"), {})._fit_mix(network)
    old, new, _ = network.second_stage.gender_mix.tolist()
    assert (old != 0) is counts
    assert new == pytest.approx(3, abs=0.3)


# --- who is drawn how often -----------------------------------------------------------------------


@pytest.fixture
def groups(tmp_path: Path) -> ImageStore:
    """Portraits of two groups of four and two of one, half of them women; one is a baby."""
    write_portraits(tmp_path, 12)
    entries = read_entries(tmp_path)
    for number, entry in enumerate(entries):
        [face] = entry.faces
        face["gender"] = ("female", "male")[number % 2]
        if number < 10:
            face["race"] = ("a", "a", "a", "a", "b", "b", "b", "b", "c", "c")[number]
        else:
            face["skin"] = "V"
    entries[0].faces[0]["age"] = 1
    return ImageStore([], entries, least_age=3, group_by=("race", "skin"))


def test_groups_are_named_by_the_first_key_and_babies_have_no_gender(groups: ImageStore) -> None:
    assert groups.groups == ["", "race a", "race b", "race c", "skin V"]
    assert groups.group.tolist() == [1] * 4 + [2] * 4 + [3] * 2 + [4] * 2
    assert groups.gender.tolist() == [-1, 1] + [0, 1] * 5
    assert groups.young.tolist() == [True] + [False] * 11


def test_groups_are_drawn_by_how_wrong_the_network_is_about_them(groups: ImageStore) -> None:
    faces = faces_of(groups)
    pools = CloseUpPools(groups, faces.select(slice(0, 0)))
    settings = CloseUpSettings(batch=20000, portrait_share=1.0, scene_share=0.0, none_share=0.0)

    def drawn() -> dict[tuple[int, int], float]:
        found = pools.draw(settings, generator())
        pairs = torch.stack([found.group, found.gender], 1).tolist()
        return {pair: pairs.count(list(pair)) / len(pairs) for pair in {*map(tuple, pairs)}}

    before = drawn()
    assert sum(share for (_, gender), share in before.items() if gender == 0) == pytest.approx(
        0.5, abs=0.02
    )
    # the root of its size: twice as many men in b as in c
    assert before[2, 1] / before[3, 1] == pytest.approx(math.sqrt(2), abs=0.1)
    # women of b are mistaken for men, all others are known
    kind = faces.select(faces.gender >= 0).kind
    for _ in range(4000):
        pools.heed(kind, torch.where(kind == 4, 2.0, 0.5))
    after = drawn()
    assert sum(share for (_, gender), share in after.items() if gender == 0) == pytest.approx(
        0.5, abs=0.02
    )
    assert after[2, 0] / after[3, 0] == pytest.approx(16 * math.sqrt(2), rel=0.15)
    assert after[2, 1] / after[3, 1] == pytest.approx(math.sqrt(2), abs=0.1)


def test_size_says_nothing_about_gender(store: ImageStore) -> None:
    """Among small faces and among large ones women come as often as men."""
    faces = faces_of(store)
    known = faces.select((faces.gender >= 0) & (faces.image < len(store.scene_ids)))
    # a dozen large women and three large men; small ones the other way round
    chosen = known.select(torch.arange(30) % len(known))
    box = torch.tensor([0.0, 0, 90, 100]).repeat(30, 1)
    box[15:] *= 0.2
    gender = torch.tensor([0] * 12 + [1] * 3 + [0] * 3 + [1] * 12)
    table = replace(
        chosen, box=box, face=box, gender=gender, male=gender.float(),
        group=torch.zeros_like(gender),
    )  # fmt: skip
    pools = pools_of(store)
    pools._scenes = table
    settings = CloseUpSettings(batch=8000, portrait_share=0, scene_share=0.5, none_share=0)
    drawn = pools.draw(settings, generator())
    taught = drawn.select(slice(0, 4000))
    large = taught.box[:, 3] > 50
    assert large.float().mean() == pytest.approx(0.5, abs=0.05)
    for some in (large, ~large):
        assert (taught.gender[some] == 0).float().mean() == pytest.approx(0.5, abs=0.04)
    as_they_come = drawn.select(slice(4000, 8000))
    assert (as_they_come.gender == -1).all()
    assert as_they_come.male.isnan().all()


@pytest.mark.slow  # two short trainings
def test_command_trains_it_beside_given_weights_and_goes_on(data: Path, tmp_path: Path) -> None:
    start = tmp_path / "first.safetensors"
    torch.manual_seed(0)
    checkpoints.save(Lite().eval(), start, {})
    scenes = shutil.copytree(data / "scenes", tmp_path / "scenes") / "faces.jsonl"
    labelled = scenes.read_text()
    scenes.write_text(labelled.replace('"gender": "male"', '"gender": null'))
    where = TrainData(scenes=[scenes], portraits=[data / "portraits"])
    closeups = CloseUpSettings(batch=16, guess_from=0.5)  # as it comes, a network is sure of little
    settings = TrainSettings(part="second-stage", steps=2, closeups=closeups)
    with pytest.raises(ConfigError, match="--init"):
        train(where, settings, tmp_path / "none", device="cpu", processes=1)
    said: list[str] = []
    weights = train(
        where, settings, tmp_path / "run", device="cpu", processes=1, init=start, say=said.append
    )
    longer = replace(settings, steps=3)
    train(where, longer, tmp_path / "run", device="cpu", processes=1, resume=True, say=said.append)
    first_guess, second_guess = (line for line in said if "got a guess" in line)
    assert not first_guess.startswith("0 faces")
    assert first_guess == second_guess, "it goes on learning from what was guessed at the start"
    scenes.write_text(labelled)
    with pytest.raises(ConfigError, match="begun with other pictures, boxes or labels"):
        train(where, longer, tmp_path / "run", device="cpu", processes=1, resume=True)
    network, _ = checkpoints.load(weights)
    assert network.second_stage is not None
    first, _ = checkpoints.load(start)
    for key, value in first.state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key


def test_portraits_alone_teach_no_second_stage(data: Path, tmp_path: Path) -> None:
    where = TrainData(portraits=[data / "portraits"])
    with pytest.raises(TrainingError, match="give --scenes"):
        train(where, TrainSettings(part="second-stage", steps=1), tmp_path / "run", device="cpu")


@pytest.mark.parametrize("count", [60, 20])
def test_keeping_the_best_fits_how_much_each_stage_says_of_gender(
    tmp_path: Path, count: int
) -> None:
    """The first stage knows red from blue, the second says little; a label in ten is off."""
    torch.manual_seed(0)
    network = coloured_lite(gender=True)
    stage = SecondStage().eval()
    with torch.no_grad():
        stage.box.weight.zero_()
        stage.box.bias.zero_()
        stage.gender.weight.mul_(0.1)
        stage.face_mix.copy_(torch.tensor([1.0, 0.0, 0.0]))
    network.second_stage = stage
    entries = []
    for number in range(count):
        colour = ("red", "blue")[number % 2]
        gender = ("female", "male")[(number % 2) ^ (number % 10 == 0)]
        image = scene(256, 256, (4, 4, colour))
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        face = {"box": box_of(4, 4), "gender": gender}
        entries.append(Entry(tmp_path / f"{number}.png", 256, 256, [face], {}))
    keeper = Keeper(RunFolder(tmp_path), ValidationData([], entries), torch.device("cpu"), {})
    keeper(network, 1)
    found, temperature = keeper.finish()
    best, _ = checkpoints.load(keeper.folder.best)
    assert best.second_stage is not None
    old, new, _ = best.second_stage.gender_mix.tolist()
    if count < 50:  # too few to tell
        assert (old, new) == (0, 1)
        return
    assert old > 3 * abs(new)
    assert temperature == pytest.approx(1, abs=0.3)  # the mix is calibrated
    assert found.portraits is not None
    assert found.portraits.accuracy == pytest.approx(0.9)
    assert found.portraits.calibration_error < 0.05


def test_shares_that_come_to_more_than_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="shares"):
        TrainSettings(steps=1, closeups=CloseUpSettings(portrait_share=0.5, none_share=0.6))


# --- its word in the detector ---------------------------------------------------------------------


class Opinion(SecondStage):
    """Answers the same of every crop, or by the colour in its middle."""

    def __init__(self, face: float = 5.0, deltas: tuple[float, ...] = (0, 0, 0, 0)) -> None:
        super().__init__()
        with torch.no_grad():
            for layer in (self.face, self.box, self.gender):
                layer.weight.zero_()
                layer.bias.zero_()
            self.face.bias.fill_(face)
            self.box.bias.copy_(torch.tensor(deltas))
            self.gender.bias.copy_(torch.tensor([2.0, 0.0]))
            self.face_mix.copy_(torch.tensor([0.0, 1.0, 0.0]))


def spotted(look: SecondStage | None, threshold: float = 0.5) -> Detector:
    network = SpotNetwork()
    network.second_stage = look
    return Detector(network, DetectSettings(face_threshold=threshold))


def spot_picture() -> np.ndarray:
    picture = np.zeros((128, 160, 3), np.uint8)
    picture[60, 76] = picture[60, 36] = (255, 0, 0)  # centres of two cells of stride 8
    return picture


def test_boxes_and_scores_are_those_of_both_looks() -> None:
    [before] = spotted(None)([spot_picture()])
    assert len(before) == 2
    side = 28.2  # the spot's longer side, as a square cut at whole pixels shows it
    [after] = spotted(Opinion(face=1.0, deltas=(0.25, 0.5, 0.0, 0.0)))([spot_picture()])
    assert len(after) == 2
    # the second view moves the box once more, back in x as it is mirrored
    moved = np.array([0.0, 1.0]) * side
    centre = (before.boxes[:, :2] + before.boxes[:, 2:]) / 2 + moved
    np.testing.assert_allclose(
        np.sort((after.boxes[:, :2] + after.boxes[:, 2:]) / 2, 0), np.sort(centre, 0), atol=1
    )
    np.testing.assert_allclose(after.boxes[:, 2:] - after.boxes[:, :2], side, atol=0.02)
    np.testing.assert_allclose(after.scores, 1 / (1 + math.exp(-1.0)), atol=1e-4)
    np.testing.assert_allclose(after.female, 1 / (1 + math.exp(-2.0)), atol=1e-4)


@pytest.mark.parametrize(
    ("gender", "face", "crops", "female"),
    [
        (0.5, 1.0, [2, 6], -0.625),  # open at first sight: three more views of each, which say -1
        (1.5, 1.0, [2, 2], 0.25),
        (0.5, -1.2, [2, 2], -0.25),  # hardly a face
        (2.5, 4.0, [2], 2.5),  # plain at first sight
    ],
)
def test_faces_whose_gender_is_open_are_seen_nearer_and_farther(
    gender: float, face: float, crops: list[int], female: float
) -> None:
    class Counts(Opinion):
        def forward(self, given: torch.Tensor):  # type: ignore[no-untyped-def]
            shown.append(len(given))
            found = super().forward(given)
            logits = torch.zeros_like(found.gender)
            logits[:, 0] = gender if len(shown) < 2 else -1.0
            return found._replace(gender=logits)

    shown: list[int] = []
    detector = spotted(Counts(face=face), threshold=0.15)
    [faces] = detector([spot_picture()])
    assert shown == crops
    np.testing.assert_allclose(faces.female, 1 / (1 + math.exp(-female)), atol=1e-3)

    shown.clear()
    detector.at_threshold(0.15, follows=True)([spot_picture()])
    assert shown == [min(count, 2) for count in crops]


@pytest.mark.parametrize("planar", [False, True])
def test_it_sees_pixels_less_the_mean_however_they_lie(planar: bool) -> None:
    look = Opinion()
    torch.nn.init.normal_(look.gender.weight, std=0.1, generator=generator(1))
    plain = copy.deepcopy(look).eval()
    detector = Detector(coloured_with(look), DetectSettings(precision="fp32"))
    crops = torch.randint(0, 256, (3, 80, 80, 3), dtype=torch.uint8, generator=generator())
    bgr = crops.flip(3).permute(0, 3, 1, 2).float()
    if planar:
        crops = crops.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    mean = torch.tensor(look.pixel_mean_bgr)[:, None, None]
    with torch.inference_mode():
        wanted = plain((bgr - mean) * plain.pixel_scale).gender
    assert detector.judge is not None
    with torch.inference_mode():
        torch.testing.assert_close(detector.judge(crops).gender, wanted, atol=1e-3, rtol=1e-3)


def coloured_with(look: SecondStage) -> SpotNetwork:
    network = SpotNetwork()
    network.second_stage = look
    return network


def test_what_it_does_not_take_for_a_face_is_gone() -> None:
    assert len(spotted(Opinion(face=-1.0))([spot_picture()])[0]) == 0
    assert len(spotted(Opinion(face=-1.0), threshold=0.2)([spot_picture()])[0]) == 2


def test_two_proposals_that_it_moves_onto_one_face_become_one() -> None:
    class Onto(Opinion):
        turn = 0

        def forward(self, crops: torch.Tensor):  # type: ignore[no-untyped-def]
            found = super().forward(crops)
            # each moves by half their distance towards the other, and stays there when it is seen
            # again, mirrored
            self.turn += 1
            way = (2 - self.turn) * 20.0 / 28.0 * torch.tensor([1.0, -1.0])
            deltas = found.deltas.clone()
            deltas[:, 0] = way[: len(deltas)]
            return found._replace(deltas=deltas)

    faces = spotted(Onto())([spot_picture()])[0]
    assert len(faces) == 1


def test_best_scores_come_first_and_faces_stay_with_their_pictures() -> None:
    class ByColour(Opinion):
        def forward(self, crops: torch.Tensor):  # type: ignore[no-untyped-def]
            found = super().forward(crops)
            green = crops[:, 1].amax((1, 2)) / 64  # RGB minus mean, after folding
            return found._replace(face=green)

    first, second = spot_picture(), spot_picture()
    first[70:76, 70:84, 1] = 200  # near the right one
    second[70:76, 30:44, 1] = 200  # near the left one
    one, other, none = spotted(ByColour(), threshold=0.1)([first, second, np.zeros_like(first)])
    assert len(none) == 0
    for faces, x in ((one, 76), (other, 36)):
        assert (np.diff(faces.scores) <= 0).all()
        assert abs(faces.boxes[0, [0, 2]].mean() - x) < 5


def test_a_weights_file_keeps_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Lite()
    network.second_stage = SecondStage()
    network.second_stage.face_mix.copy_(torch.tensor([0.25, 0.5, -0.125]))
    checkpoints.save(network.eval(), tmp_path / "a.safetensors", {}, half=False)
    again, _ = checkpoints.load(tmp_path / "a.safetensors")
    assert again.second_stage is not None
    for key, value in network.second_stage.state_dict().items():
        assert torch.equal(again.second_stage.state_dict()[key], value)
    crops = torch.randn(2, 3, SIDE_PX, SIDE_PX)
    torch.testing.assert_close(again.second_stage(crops), network.second_stage(crops))


def test_losses_ask_only_for_what_is_known(store: ImageStore) -> None:
    table = faces_of(store).select(torch.arange(6))
    unknown = Candidates(
        table.image, table.box, torch.full_like(table.face, math.nan),
        torch.full_like(table.gender, -1), torch.full_like(table.male, math.nan),
        table.group, table.level, table.logit,
    )  # fmt: skip
    _, targets = plan_closeups(store, unknown, STILL, generator())
    torch.manual_seed(0)
    opinion = SecondStage().eval()(torch.randn(6, 3, SIDE_PX, SIDE_PX))
    losses = second_stage_losses(opinion, targets, LossSettings())
    assert losses.box == 0
    assert losses.gender == 0
    assert losses.face > 0


def test_blends_are_of_both_faces_and_teach_gender_by_what_is_left_of_each(
    store: ImageStore,
) -> None:
    table = faces_of(store)
    _, targets = plan_closeups(store, table, STILL, generator())
    known = targets.gender >= 0
    images = torch.arange(len(table), dtype=torch.float32)[:, None, None, None].repeat(1, 3, 4, 4)
    mixed, blends = blended(images.clone(), targets, 0.5, generator(1))
    alone = blends.share == 1
    assert alone[~known].all()
    assert 0.3 < alone[known].float().mean() < 0.7
    assert torch.equal(mixed[alone], images[alone])
    assert not blends.has_box[~alone].any()
    assert torch.equal(blends.has_box[alone], targets.has_box[alone])
    assert (blends.share >= 0.5).all()
    numbers = known.nonzero().squeeze(1)
    other = dict(zip(numbers.tolist(), numbers.roll(1).tolist(), strict=True))
    for k in (~alone).nonzero().squeeze(1).tolist():
        left = float(blends.share[k])
        of_both = left * targets.male[k] + (1 - left) * targets.male[other[k]]
        assert blends.male[k] == pytest.approx(float(of_both))
        assert mixed[k, 0, 0, 0] == pytest.approx(left * k + (1 - left) * other[k], rel=1e-5)

    torch.manual_seed(0)
    opinion = SecondStage().eval()(torch.randn(len(table), 3, SIDE_PX, SIDE_PX))
    settings = LossSettings(gender_smoothing=0.1)
    logs = opinion.gender.log_softmax(1)
    wanted = []
    for k in numbers.tolist():
        truth = torch.stack([1 - blends.male[k], blends.male[k]])
        wanted.append(-(logs[k] * (0.9 * truth + 0.05)).sum())
    losses = second_stage_losses(opinion, blends, settings)
    torch.testing.assert_close(losses.gender, torch.stack(wanted).mean())
    face = torch.nn.functional.softplus(torch.where(blends.holds_face, -opinion.face, opinion.face))
    torch.testing.assert_close(losses.face, face[alone].mean())


def test_genders_are_guessed_in_scenes_where_the_network_is_sure(
    data: Path, tmp_path: Path
) -> None:
    store = ImageStore(read_entries(data / "scenes"), read_entries(data / "portraits"))
    true = store.gender.clone()
    in_scenes = torch.arange(len(true)) < store.first_face[len(store.scene_ids)]
    store.gender[::2] = -1
    store.male[::2] = math.nan

    class BlueIsMale(SecondStage):
        """Sure of blue ovals, which are men, and in doubt about others."""

        def forward(self, crops: torch.Tensor) -> SecondOpinion:
            middle = crops[:, :, SIDE_PX // 2, SIDE_PX // 2]
            blue = (middle[:, 0] > middle[:, 2]).float() * 4
            return SecondOpinion(
                blue, torch.zeros(len(crops), 4), torch.stack([torch.zeros_like(blue), blue], 1)
            )

    settings = CloseUpSettings(guess_from=0.9, least_guessed_px=1)
    before = store.gender.clone()
    look = BlueIsMale().eval()
    store.young[:] = True
    assert not len(Guesses.make(store, look, settings).face), "nobody can tell"
    store.young[:] = False
    guesses = Guesses.make(store, look, settings)
    assert torch.equal(store.gender, before)
    (tmp_path / "guesses.safetensors").write_bytes(guesses.packed())
    guesses = Guesses.load(tmp_path / "guesses.safetensors")
    guesses.put_into(store)
    changed = store.gender != before
    assert changed.sum() == len(guesses.face) > 3
    assert (guesses.gender == 1).all()
    assert (store.male[changed] == 1).all()
    assert (true[changed] == 1).all()
    assert (before[changed] == -1).all()
    assert in_scenes[changed].all()
    assert not len(Guesses.make(store, look, settings).face), "those left are in doubt"
    store.male[:] = math.nan
    assert not len(Guesses.make(store, look, CloseUpSettings(least_guessed_px=1e4)).face)
    (tmp_path / "guesses.safetensors").write_bytes(b"cut short")
    with pytest.raises(TrainingError, match=r"guesses\.safetensors: cannot be read"):
        Guesses.load(tmp_path / "guesses.safetensors")


def test_the_crops_proposal_is_a_square_in_its_middle() -> None:
    box = proposal_in_crop(torch.zeros(2, 1))
    assert box.tolist() == [[16.0, 16.0, 64.0, 64.0]] * 2
