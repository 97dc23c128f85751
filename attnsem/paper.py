"""The paper's settings and variants; what it leaves open is marked "ours" and reasoned in CHOICES.md."""

from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path

from attnsem import StudyError

CONVS = (256, 256, 512, 1024)  # section 2.3
ALPHA = 0.48  # section 2.3, start value
GATES = ("literal", "logits", "confidence", "signed", "pooled")  # ours; what the semantic part sees: model.gated


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of Tables 3 and 4: whether there is attention, which SE blocks, the convs' widths; ours: what gives ỹ
    (none, semantic, attended, two_layer, average or max: model.head_of), whether ŷ is it alone or fused with y′, and
    whether each image's channels are shuffled between the labels."""

    attention: bool = False
    se: tuple[int, ...] = ()
    convs: tuple[int, ...] = ()
    head: str = "semantic"
    fused: bool = True
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
    "attended": Variant(attention=True, head="attended"),
    "two_layer": Variant(head="two_layer", fused=False, stages=(1, 3, 4)),
    "two_layer_fused": Variant(head="two_layer", stages=(1, 3, 4)),
    "average": Variant(head="average", fused=False, stages=(1, 3, 4)),
    "max": Variant(head="max", fused=False, stages=(1, 3, 4)),
    "shuffled": replace(VARIANTS["proposed"], shuffled=True),
}

CHOICES = {
    "stage": (1, 2, 3, 4),
    "variant": (*VARIANTS, *CONTROLS),
    "gate": GATES,
    "attention_objective": ("confidence", "literal"),
    "train_split": ("train", "trainval"),
    "test_split": ("val", "test"),
    "difficult": ("ignore", "negative", "positive"),
    "batchnorm": ("batch", "fixed"),
    "precision": ("auto", "32-true", "bf16-mixed", "16-mixed"),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides what a stage learns; the defaults are the paper's (section 3.1) unless marked ours."""

    dataset: str
    stage: int
    variant: str = "proposed"
    gate: str = "literal"
    attention_objective: str = "confidence"  # ours: of stage 2; "literal" has no gradient
    seed: int = 0  # ours
    backbone: str = "densenet121"
    weights: str = "imagenet"
    train_size: int = 512
    image_size: int = 448
    train_split: str = "trainval"
    test_split: str = "test"
    difficult: str = "ignore"  # ours: what training does with difficult labels
    epochs: int = 60  # ours
    batch_size: int = 24
    lr: float = 0.001
    lr_step: int = 30
    lr_drop: float = 0.1
    new_lr: float = 1.0  # ours: multiple of lr for stage 1's classifier, which is not pre-trained
    momentum: float = 0.9
    weight_decay: float = 0.0005
    train_backbone: bool = True  # stage 1; stages 2 and 3 never train it
    semantic_loss: float = 0.0  # ours: weight of a loss of its own for ỹ, stages 3 and 4
    baseline_folds: int = 0  # ours: stage 3 sees y′ of classifiers that did not train on the image, from so many folds
    alpha_min: float = 0.0  # ours: with alpha_max narrows eq. (9)'s [0, 1]; equal, they hold α there
    alpha_max: float = 1.0
    channels_per_label: int = 1  # more are the paper's future work; their attentions are averaged
    similarity: str = ""  # ours: file of how alike labels are by text, blended into the targets of ỹ's own loss
    similarity_weight: float = 0.1
    similarity_seed: int = 0  # a control: above 0, the similarities of labels in another order
    batchnorm: str = "batch"  # ours: of a backbone that is trained; "fixed" keeps its statistics
    feature_cache: int = 0  # ours: augmented views to cache; 0 recomputes the frozen features
    evaluate_every: int = 0  # epochs; 0: only after the last
    precision: str = "auto"  # ours: the fastest that the device gains from, engine.fastest_precision
    compile: bool = False  # ours

    def lr_at(self, epoch: int) -> float:
        """epoch: from 0."""
        return self.lr * self.lr_drop ** (epoch // self.lr_step)


SCENES = {"backbone": "densenet_small", "weights": "none", "train_size": 72, "image_size": 64, "evaluate_every": 1}
SCENES_STAGE = {
    1: {"epochs": 10, "lr": 0.02, "lr_step": 7},
    2: {"epochs": 4, "lr": 0.02, "lr_step": 3, "feature_cache": 4},
    3: {"epochs": 4, "lr": 0.02, "lr_step": 3, "feature_cache": 4},
    4: {"epochs": 2, "lr": 0.002, "lr_step": 1},
}
# Name a run's folder where they are not the default.
SEMANTIC = (
    *("semantic_loss", "baseline_folds", "alpha_min", "alpha_max", "channels_per_label"),
    *("similarity", "similarity_weight", "similarity_seed"),
)
INHERITED = (
    *("dataset", "seed", "backbone", "weights", "train_size", "image_size"),
    *("train_split", "test_split", "difficult"),
)


def variant(name: str) -> Variant:
    return (VARIANTS | CONTROLS)[name]


def part_of(settings: Settings) -> str:
    """The folder under which a stage is kept: variants share stage 1, and those with attention stage 2."""
    if settings.stage == 1:
        return "densenet"
    own = [
        f"{name}-{Path(value).stem}" if isinstance(value, str) else f"{name}{value:g}"
        for name, value in changed(settings, SEMANTIC).items()
    ]
    if settings.stage == 2:
        objective = [settings.attention_objective] if settings.attention_objective != "confidence" else []
        return "-".join(["attention", *objective, *(name for name in own if name.startswith("channels_per_label"))])
    gate = [settings.gate] if settings.gate != "literal" else []
    return "-".join([settings.variant, *gate, *own])


def changed(settings: Settings, names: tuple[str, ...]) -> dict[str, object]:
    """Those that are not the default."""
    return {name: value for name in names if (value := getattr(settings, name)) != getattr(Settings, name)}


def name_of(dataset: str) -> str:
    """A data set's name: itself, or the stem of the user's CSV."""
    return Path(dataset).stem if dataset.endswith(".csv") else dataset


def settings(stage: int, *, dataset: str, **parameters: object) -> Settings:
    """The settings of a stage; a parameter that is None takes the data set's default.

    Raises StudyError on an unknown name, a wrong type or a value that is not among the choices.
    """
    known = {field.name: field.type for field in fields(Settings)}
    defaults = SCENES | SCENES_STAGE[stage] if dataset == "scenes" and stage in SCENES_STAGE else {}
    given = {name: value for name, value in parameters.items() if value is not None}
    for name, value in given.items():
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise StudyError(f"unknown parameter {name!r}{hint}")
        given[name] = typed(name, value, known[name])
    chosen = Settings(**({"dataset": name_of(dataset), "stage": stage} | defaults | given))
    check(chosen)
    return chosen


def rebuilt(parameters: object) -> Settings:
    """The settings that a manifest names; StudyError where they are none."""
    known = {field.name: field.type for field in fields(Settings)}
    if not isinstance(parameters, dict) or not {"dataset", "stage"} <= set(parameters) <= set(known):
        raise StudyError("its parameters are not those of a stage")
    chosen = Settings(**{name: typed(name, value, known[name]) for name, value in parameters.items()})
    if Path(chosen.dataset).name != chosen.dataset:
        raise StudyError(f"parameter dataset must be a name, not {chosen.dataset!r}")
    check(chosen)
    return chosen


def before(chosen: Settings) -> Settings | None:
    """Of the stage before, None for stage 1."""
    stages = variant(chosen.variant).stages
    place = stages.index(chosen.stage)
    return replace(chosen, stage=stages[place - 1]) if place else None


def typed(name: str, value: object, kind: type) -> object:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise StudyError(f"parameter {name} must be {kind.__name__}, not {value!r}")
    return value


def check(chosen: Settings) -> None:
    for name, allowed in CHOICES.items():
        if (value := getattr(chosen, name)) not in allowed:
            raise StudyError(f"parameter {name} must be one of {', '.join(map(str, allowed))}, not {value!r}")
    for name in ("epochs", "batch_size", "train_size", "image_size", "lr", "lr_step", "channels_per_label"):
        if not getattr(chosen, name) > 0:
            raise StudyError(f"parameter {name} must be above 0, not {getattr(chosen, name)!r}")
    for name in ("seed", "feature_cache", "evaluate_every", "weight_decay", "momentum", *SEMANTIC):
        if name != "similarity" and getattr(chosen, name) < 0:
            raise StudyError(f"parameter {name} must be 0 or more, not {getattr(chosen, name)!r}")
    if chosen.train_size < chosen.image_size:
        raise StudyError(f"train_size {chosen.train_size} is smaller than the crop, image_size {chosen.image_size}")
    if not chosen.alpha_min <= chosen.alpha_max <= 1:
        raise StudyError(f"alpha_min {chosen.alpha_min} to alpha_max {chosen.alpha_max} is no range within 0 and 1")
    if chosen.similarity and not (chosen.semantic_loss and chosen.similarity_weight <= 1):
        raise StudyError("similarity is blended into the targets of ỹ's own loss, by 0 to 1; give it a semantic_loss")
    if chosen.baseline_folds == 1:
        raise StudyError("parameter baseline_folds must be 0, or 2 or more")
    if chosen.stage not in (stages := variant(chosen.variant).stages):
        raise StudyError(f"variant {chosen.variant} has no stage {chosen.stage}, only {', '.join(map(str, stages))}")


def inherit(child: Settings, parent: Settings) -> Settings:
    """The child stage's settings with what a run decides once, in stage 1."""
    return replace(child, **{name: getattr(parent, name) for name in INHERITED})
