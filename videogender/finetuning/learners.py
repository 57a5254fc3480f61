"""What is trained: a few layers beside a frozen network, asked about patches of its features.

GenderLearner       the network's own gender heads, linear or a tower
AttributeLearner    heads at the anchors of faces for any other classes
ClassifierLearner   one linear layer on the last map of the whole picture
RefeedLearner       a head on one map of the crop around a face
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from videogender.errors import ConfigError
from videogender.finetuning.settings import FinetuneSettings
from videogender.network import checkpoints
from videogender.network.attributes import AttributeHeads, Head, LinearClassifier, RefeedHead
from videogender.network.heads import GENDER_FORMS, AnchorNetwork, GenderForm

GENDERS = ("female", "male")

__all__ = ["GENDERS", "Learner", "gender_of", "is_half", "new_learner"]


class Learner(nn.Module):
    """Layers that are trained beside a network.

    Args:
        network: nothing of it changes but its gender heads, where these are what is trained.
        head: what is trained beside it, or None.
        classes: C.

    Attributes:
        task: as `network.trained` names it.
        radius: cells around an anchor's own that are read, or None where whole maps are.
    """

    task = ""
    radius: int | None = None

    def __init__(self, network: AnchorNetwork, head: Head | None, classes: int) -> None:
        super().__init__()
        self.network, self.head, self.classes = network, head, classes
        self.network.requires_grad_(False).eval()
        for parameter in self.trained().values():
            parameter.requires_grad_(True)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return what is trained, by name."""
        return dict(self.head.named_parameters()) if self.head is not None else {}

    def freeze_levels(self, levels: set[int]) -> None:
        """Leave the heads of some levels as they are: nothing can be learned about them."""

    def logits(self, level: int, patches: Tensor) -> Tensor:
        """Return class logits [N, C] of patches [N, channels, p, p] of a level."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """Return copies of what is trained."""
        return {name: p.detach().clone() for name, p in self.trained().items()}

    @torch.no_grad()
    def put(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned."""
        for name, parameter in self.trained().items():
            parameter.copy_(state[name])

    def write(self, path: Path, metadata: Mapping[str, str], *, half: bool) -> None:
        """Write the network and what was trained to a weights file.

        Args:
            path: the `.safetensors` file.
            metadata: what to record.
            half: whether the network came as half precision; it must stay as it was, bit for bit.
        """
        checkpoints.save(self.network, path, metadata, half=half, head=self.head)


class GenderLearner(Learner):
    """The gender heads of a network."""

    task = "gender"

    def __init__(self, network: AnchorNetwork) -> None:
        super().__init__(network, None, len(GENDERS))
        self.radius = max(network.gender_radius(level) for level in range(len(network.taps)))

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the gender heads, by name."""
        return {k: p for k, p in self.network.named_parameters() if _is_gender(k)}

    def freeze_levels(self, levels: set[int]) -> None:
        """See `Learner.freeze_levels`."""
        for level in levels:
            head: nn.Module = getattr(self.network, f"{self.network.taps[level]}_gender")
            head.requires_grad_(False)

    def logits(self, level: int, patches: Tensor) -> Tensor:
        """See `Learner.logits`."""
        inner = _inner(patches, self.network.gender_radius(level))
        return self.network.gender_at_level(level, inner).flatten(1)


class AttributeLearner(Learner):
    """Heads for classes other than gender."""

    task = "attribute"
    head: AttributeHeads

    def __init__(self, network: AnchorNetwork, head: AttributeHeads) -> None:
        super().__init__(network, head, head.classes)
        self.radius = head.radius

    def freeze_levels(self, levels: set[int]) -> None:
        """See `Learner.freeze_levels`."""
        for level in levels:
            self.head.levels[level].requires_grad_(False)

    def logits(self, level: int, patches: Tensor) -> Tensor:
        """See `Learner.logits`."""
        return self.head.at_level(level, _inner(patches, self.head.radius)).flatten(1)


class ClassifierLearner(Learner):
    """A linear layer on a whole map.

    Features may be standardised for training, by what `standardise` was told; mean and deviation
    are folded into the layer where it is written.
    """

    task = "classifier"
    head: LinearClassifier
    mean: Tensor
    deviation: Tensor

    def __init__(self, network: AnchorNetwork, head: LinearClassifier) -> None:
        super().__init__(network, head, head.classes)
        self.register_buffer("mean", torch.zeros(head.linear.in_features))
        self.register_buffer("deviation", torch.ones(head.linear.in_features))

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Learn mean and deviation from features [N, inputs]; those that never vary are left."""
        self.mean.copy_(features.mean(0))
        spread = features.std(0, correction=0)
        self.deviation.copy_(torch.where(spread > 1e-4 * spread.max(), spread, torch.inf))
        self.head.linear.weight.zero_()  # all answers are 1 / C at first
        assert self.head.linear.bias is not None
        self.head.linear.bias.zero_()

    def logits(self, level: int, patches: Tensor) -> Tensor:
        """See `Learner.logits`."""
        out: Tensor = self.head.linear((patches.flatten(1) - self.mean) / self.deviation)
        return out

    @torch.no_grad()
    def write(self, path: Path, metadata: Mapping[str, str], *, half: bool) -> None:
        """See `Learner.write`."""
        folded = copy.deepcopy(self.head)
        folded.linear.weight.div_(self.deviation)
        folded.linear.bias.sub_(folded.linear.weight @ self.mean)
        checkpoints.save(self.network, path, metadata, half=half, head=folded)


class RefeedLearner(Learner):
    """A head on the middle of one map."""

    task = "refeed"
    head: RefeedHead

    def __init__(self, network: AnchorNetwork, head: RefeedHead) -> None:
        super().__init__(network, head, head.classes)

    def logits(self, level: int, patches: Tensor) -> Tensor:
        """See `Learner.logits`."""
        return self.head.at_centre(patches)


def new_learner(
    network: AnchorNetwork, classes: tuple[str, ...], settings: FinetuneSettings
) -> Learner:
    """Return what a recipe trains, where it starts.

    Args:
        network: changed in place where its gender heads are trained.
        classes: of the labels; (female, male) trains gender heads.
        settings: recipe, form and start.

    Raises:
        ConfigError: heads shall start from gender heads that are not there, or are of another form.
    """
    torch.manual_seed(settings.seed)  # the same first weights in every process
    kind, want = settings.kind, settings.head
    if kind == "classifier":
        return ClassifierLearner(network, LinearClassifier.beside(network, len(classes)))
    if kind == "refeed":
        return RefeedLearner(network, RefeedHead.beside(network, len(classes), want.level))
    form = next((f for f in GENDER_FORMS if f == want.form), None)
    start = _start(network, settings)
    if classes != GENDERS:
        heads = AttributeHeads(network.tap_channels, len(classes), form or _form(start, network))
        if start != "random":
            heads.start_from(network)
        return AttributeLearner(network, heads)
    if start == "weights":
        if form not in (None, network.gender_form):
            raise ConfigError(
                f"head.form {form}: the weights have {network.gender_form} gender heads; start new "
                "ones with head.start=face or random"
            )
    else:
        network.add_gender_heads(form or _form(start, network))
        if start == "random" and network.gender_form == "linear":
            for level in range(len(network.taps)):
                head: nn.Conv2d = getattr(network, f"{network.taps[level]}_gender")
                head.reset_parameters()
    return GenderLearner(network)


def gender_of(network: AnchorNetwork) -> Learner | None:
    """Return the gender heads that a network has, as they are; or None."""
    return GenderLearner(network) if network.has_gender else None


def is_half(path: Path) -> bool:
    """Tell whether a weights file holds half precision."""
    with safe_open(path, framework="pt") as file:
        return any(file.get_slice(key).get_dtype() == "F16" for key in file.keys())  # noqa: SIM118


def _start(network: AnchorNetwork, settings: FinetuneSettings) -> str:
    """Decide where heads begin."""
    want = settings.head.start
    if want == "weights" and not network.has_gender:
        raise ConfigError("head.start weights: the weights have no gender heads; take face")
    if want == "auto":
        return "weights" if network.has_gender else "face"
    if want == "face" and settings.head.form == "tower":
        raise ConfigError("head.start face: only linear heads can begin as face heads; take random")
    return want


def _form(start: str, network: AnchorNetwork) -> GenderForm:
    if start == "face":
        return "linear"
    return network.gender_form or network.own_gender_form


def _inner(patches: Tensor, radius: int) -> Tensor:
    """Cut the cells within a radius out of larger patches."""
    spare = patches.shape[2] // 2 - radius
    return patches[:, :, spare : patches.shape[2] - spare, spare : patches.shape[3] - spare]


def _is_gender(name: str) -> bool:
    return "_gender." in name or name.startswith("gender_shared.")
