"""The paper's settings and variants; what it leaves open is marked "ours" and reasoned in CHOICES.md."""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ValidationError, model_validator
from pydantic.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from attnsem import StudyError

CONVS = (256, 256, 512, 1024)  # section 2.3
ALPHA = 0.48  # section 2.3, start value
Gate = Literal["literal", "logits", "confidence", "signed", "pooled"]  # ours: what the semantic part sees, model.gated
GATES = get_args(Gate)
Alpha = Literal["clamped", "sigmoid", "unbounded", "warm-up", "fixed"]  # ours: how α is kept in [0, 1], model.Fusion
ALPHAS = get_args(Alpha)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of Tables 3 and 4: whether there is attention, which SE blocks, the convs' widths; ours: what gives ỹ
    (none, semantic, grouped, attention, two_layer, average or max: model.head_of), whether ŷ is it alone or fused with
    y′, whether an SE block comes after its conv, and whether each image's channels are shuffled between the labels."""

    attention: bool = False
    se: tuple[int, ...] = ()
    convs: tuple[int, ...] = ()
    head: str = "semantic"
    fused: bool = True
    se_after: bool = False
    shuffled: bool = False
    stages: tuple[int, ...] = (1, 2, 3, 4)


VARIANTS = {
    "densenet": Variant(head="none", stages=(1, 4)),
    "att": Variant(attention=True, se=(1,)),
    "se": Variant(se=(1, 2, 3, 4), convs=CONVS, stages=(1, 3, 4)),
    "proposed": Variant(attention=True, se=(1, 2, 3, 4), convs=CONVS),
    "se1_conv4": Variant(attention=True, se=(1,), convs=CONVS),
    "se13_conv4": Variant(attention=True, se=(1, 3), convs=CONVS),
    "se5_conv5": Variant(attention=True, se=(1, 2, 3, 4, 5), convs=(*CONVS, 1024)),  # fifth width: ours
}
CONTROLS = {
    "attention_pooling": Variant(attention=True, head="attention"),
    "no_se": Variant(attention=True, convs=CONVS),
    "se_after": replace(VARIANTS["proposed"], se_after=True),
    "grouped": Variant(attention=True, convs=CONVS, head="grouped"),
    "two_layer": Variant(head="two_layer", fused=False, stages=(1, 3, 4)),
    "two_layer_fused": Variant(head="two_layer", stages=(1, 3, 4)),
    "average": Variant(head="average", fused=False, stages=(1, 3, 4)),
    "max": Variant(head="max", fused=False, stages=(1, 3, 4)),
    "shuffled": replace(VARIANTS["proposed"], shuffled=True),
}


class Settings(BaseModel, frozen=True, strict=True, extra="forbid", allow_inf_nan=False):
    """All that decides what a stage learns; the defaults are the paper's (section 3.1) unless marked ours."""

    dataset: str
    stage: Literal[1, 2, 3, 4]
    variant: Literal[*VARIANTS, *CONTROLS] = "proposed"
    gate: Gate = "literal"
    attention_objective: Literal["confidence", "literal"] = "confidence"  # ours: of stage 2; "literal" has no gradient
    seed: NonNegativeInt = 0  # ours
    backbone: str = "densenet121"
    weights: str = "imagenet"
    train_size: PositiveInt = 512
    image_size: PositiveInt = 448
    train_split: Literal["train", "trainval"] = "trainval"
    test_split: Literal["val", "test"] = "test"
    difficult: Literal["ignore", "negative", "positive"] = "ignore"  # ours: what training does with difficult labels
    label_loss: Literal["sum", "mean"] = "sum"  # over labels, eq. (10); the mean is PyTorch's default
    loss: Literal["bce", "asl"] = "bce"  # eq. (10), or Ben-Baruch et al. 2021 with their γ₋, γ₊ and margin
    gamma_neg: NonNegativeFloat = 4.0
    gamma_pos: NonNegativeFloat = 0.0
    clip: NonNegativeFloat = 0.05
    epochs: PositiveInt = 60  # ours
    batch_size: PositiveInt = 24
    lr: PositiveFloat = 0.001
    lr_step: PositiveInt = 30
    lr_drop: NonNegativeFloat = 0.1
    new_lr: NonNegativeFloat = 1.0  # ours: multiple of lr for stage 1's classifier, which is not pre-trained
    momentum: NonNegativeFloat = 0.9
    weight_decay: NonNegativeFloat = 0.0005
    train_backbone: bool = True  # stage 1; stages 2 and 3 never train it
    semantic_loss: NonNegativeFloat = 0.0  # ours: weight of a loss of its own for ỹ, stages 3 and 4
    baseline_folds: NonNegativeInt = 0  # ours: stage 3 sees y′ of classifiers that did not train on the image
    alpha: Alpha = "clamped"  # ours
    alpha_warmup: PositiveInt = 1  # ours: epochs in which "warm-up" fixes α
    channels_per_label: PositiveInt = 1  # more are the paper's future work; their attentions are averaged
    similarity: str = ""  # ours: file of how alike labels are by text, blended into the targets of ỹ's own loss
    similarity_weight: NonNegativeFloat = 0.1
    similarity_seed: NonNegativeInt = 0  # a control: above 0, the similarities of labels in another order
    batchnorm: Literal["batch", "fixed"] = "batch"  # ours: of a backbone that is trained; "fixed" keeps its statistics
    feature_cache: NonNegativeInt = 0  # ours: augmented views to cache; 0 recomputes the frozen features
    evaluate_every: NonNegativeInt = 0  # epochs; 0: only after the last
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"  # ours: auto is engine.fastest_precision
    compile: bool = False  # ours

    @model_validator(mode="before")
    @classmethod
    def of_earlier_runs(cls, values: object) -> object:
        """Manifests before 2026-11-26: α's reading as the limits of its clamp, and a variant's former name."""
        readings = {(0, 1): {}, (ALPHA, ALPHA): {"alpha": "fixed"}}
        if isinstance(values, dict) and values.get("variant") == "attended":
            values = values | {"variant": "attention_pooling"}
        if isinstance(values, dict) and (limits := (values.get("alpha_min"), values.get("alpha_max"))) in readings:
            return {name: v for name, v in values.items() if not name.startswith("alpha_m")} | readings[limits]
        return values

    @model_validator(mode="after")
    def fit_together(self) -> "Settings":
        stages = VARIANT[self.variant].stages
        if Path(self.dataset).name != self.dataset:
            raise ValueError(f"parameter dataset must be a name, not {self.dataset!r}")
        if self.train_size < self.image_size:
            raise ValueError(f"train_size {self.train_size} is smaller than the crop, image_size {self.image_size}")
        if self.gate == "pooled" and VARIANT[self.variant].head == "grouped":
            raise ValueError("variant grouped has a channel for each label; give it another gate than pooled")
        if self.similarity and not (self.semantic_loss and self.similarity_weight <= 1):
            raise ValueError("similarity blends, 0 to 1, into the targets of ỹ's own loss; give it a semantic_loss")
        if self.loss == "bce" and (own := changed(self, LOSS)):
            raise ValueError(f"parameter {', '.join(own)} belongs to the asymmetric loss; give loss asl with it")
        if self.baseline_folds == 1:
            raise ValueError("parameter baseline_folds must be 0, or 2 or more")
        if self.stage not in stages:
            raise ValueError(f"variant {self.variant} has no stage {self.stage}, only {', '.join(map(str, stages))}")
        return self

    def lr_at(self, epoch: int) -> float:
        """epoch: from 0."""
        return self.lr * self.lr_drop ** (epoch // self.lr_step)


VARIANT = VARIANTS | CONTROLS
SCENES = {"backbone": "densenet_small", "weights": "none", "train_size": 72, "image_size": 64, "evaluate_every": 1}
SCENES_STAGE = {
    1: {"epochs": 10, "lr": 0.02, "lr_step": 7},
    2: {"epochs": 4, "lr": 0.02, "lr_step": 3, "feature_cache": 4},
    3: {"epochs": 4, "lr": 0.02, "lr_step": 3, "feature_cache": 4},
    4: {"epochs": 2, "lr": 0.002, "lr_step": 1},
}
LOSS = ("loss", "gamma_neg", "gamma_pos", "clip")
SEMANTIC = (
    *("semantic_loss", "baseline_folds", "alpha", "alpha_warmup", "channels_per_label"),
    *("similarity", "similarity_weight", "similarity_seed", *LOSS),
)
NAMED = {1: LOSS, 2: ("channels_per_label", *LOSS), 3: SEMANTIC, 4: SEMANTIC}  # name a run's folder if not the default
DATA = ("dataset", "train_size", "image_size", "train_split", "test_split", "difficult")
INHERITED = {*DATA, "seed", "backbone", "weights"}  # what a run decides once, in stage 1


def settings(stage: int, *, dataset: str, **parameters: object) -> Settings:
    """The settings of a stage; a parameter that is None takes the data set's default.

    Raises StudyError on an unknown name, a wrong type or a value that is not among the choices.
    """
    defaults = SCENES | SCENES_STAGE.get(stage, {}) if dataset == "scenes" else {}
    values = {name: value for name, value in parameters.items() if value is not None}
    return checked(Settings, {"dataset": name_of(dataset), "stage": stage} | defaults | values)


def checked(model: type[BaseModel], values: object) -> BaseModel:
    """The values as a model; StudyError, in one sentence on the first that does not fit."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise StudyError(sentence(fault, list(model.model_fields))) from error


def sentence(fault: dict, names: list[str]) -> str:
    """What pydantic says of a value, in this study's words. names: of all parameters."""
    kind, limits, name = fault["type"], fault.get("ctx", {}), "".join(map(str, fault["loc"][:1]))
    if kind == "value_error":
        return str(limits["error"])
    if kind == "extra_forbidden":
        close = get_close_matches(name, names, n=1)
        return f"unknown parameter {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
    types = {"int": "int", "float": "float", "finite": "float", "string": "str", "bool": "bool"}
    if kind == "literal_error":
        expected = "one of " + limits["expected"].replace(" or ", ", ").replace("'", "")
    elif kind.startswith("greater_than"):
        expected = f"above {limits['gt']:g}" if "gt" in limits else f"{limits['ge']:g} or more"
    elif kind.partition("_")[0] in types:
        expected = f"of type {types[kind.partition('_')[0]]}"
    else:
        return f"the parameters are not those of a stage ({name} {fault['msg']})"
    return f"parameter {name} must be {expected}, not {fault['input']!r}"


def is_table(dataset: str) -> bool:
    """Whether it is the path of the user's own CSV."""
    return dataset.lower().endswith(".csv")


def name_of(dataset: str) -> str:
    """A data set's name: itself, or the stem of the user's CSV."""
    return Path(dataset).stem if is_table(dataset) else dataset


def part_of(settings: Settings) -> str:
    """The folder under which a stage is kept: variants share stage 1, and those with attention stage 2."""
    own = [
        f"{name}-{Path(value).stem}" if isinstance(value, str) else f"{name}{value:g}"
        for name, value in changed(settings, NAMED[settings.stage]).items()
    ]
    objective = [settings.attention_objective] if settings.attention_objective != "confidence" else []
    if settings.stage < 3:
        return "-".join([*(["densenet"] if settings.stage == 1 else ["attention", *objective]), *own])
    gate = [settings.gate] if settings.gate != "literal" else []
    return "-".join([settings.variant, *gate, *own, *(f"attention_{name}" for name in objective)])


def changed(settings: Settings, names: tuple[str, ...]) -> dict[str, object]:
    """Those that are not the default."""
    defaults = {name: Settings.model_fields[name].default for name in names}
    return {name: value for name in names if (value := getattr(settings, name)) != defaults[name]}


def before(settings: Settings) -> Settings | None:
    """Of the stage before, None for stage 1."""
    stages = VARIANT[settings.variant].stages
    place = stages.index(settings.stage)
    return settings.model_copy(update={"stage": stages[place - 1]}) if place else None
