"""The paper's settings and variants; what it leaves open is marked "ours" and reasoned in CHOICES.md."""

from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path

from attnsem import StudyError

ROOT = Path(__file__).resolve().parents[1]
CONVS = (256, 256, 512, 1024)  # section 2.3
ALPHA = 0.48  # section 2.3, start value
GATES = ("literal", "logits", "confidence")  # ours; what SE1 sees: model.SemanticPart


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of Tables 3 and 4: whether there is attention, which SE blocks, the convs' widths."""

    attention: bool = False
    se: tuple[int, ...] = ()
    convs: tuple[int, ...] = ()
    stages: tuple[int, ...] = (1, 2, 3, 4)


VARIANTS = {
    "densenet": Variant(stages=(1,)),
    "att": Variant(attention=True, se=(1,)),
    "se": Variant(se=(1, 2, 3, 4), convs=CONVS, stages=(1, 3, 4)),
    "proposed": Variant(attention=True, se=(1, 2, 3, 4), convs=CONVS),
    "se1_conv4": Variant(attention=True, se=(1,), convs=CONVS),
    "se13_conv4": Variant(attention=True, se=(1, 3), convs=CONVS),
    "se5_conv5": Variant(attention=True, se=(1, 2, 3, 4, 5), convs=(*CONVS, 1024)),  # fifth width: ours
}

CHOICES = {
    "stage": (1, 2, 3, 4),
    "variant": tuple(VARIANTS),
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
    batchnorm: str = "batch"  # ours: of a backbone that is trained; "fixed" keeps its statistics
    feature_cache: int = 0  # ours: augmented views to cache; 0 recomputes the frozen features
    evaluate_every: int = 0  # epochs; 0: only after the last
    precision: str = "auto"  # ours: the fastest that the device gains from, engine.fastest_precision
    compile: bool = False  # ours


SCENES = {"backbone": "densenet_small", "weights": "none", "train_size": 72, "image_size": 64, "evaluate_every": 1}
SCENES_STAGE = {
    1: {"epochs": 10, "lr": 0.02, "lr_step": 7},
    2: {"epochs": 4, "lr": 0.02, "lr_step": 3, "feature_cache": 4},
    3: {"epochs": 4, "lr": 0.02, "lr_step": 3, "feature_cache": 4},
    4: {"epochs": 2, "lr": 0.002, "lr_step": 1},
}
INHERITED = (
    *("dataset", "seed", "backbone", "weights", "train_size", "image_size"),
    *("train_split", "test_split", "difficult"),
)


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
    for name in ("epochs", "batch_size", "train_size", "image_size", "lr", "lr_step"):
        if not getattr(chosen, name) > 0:
            raise StudyError(f"parameter {name} must be above 0, not {getattr(chosen, name)!r}")
    for name in ("seed", "feature_cache", "evaluate_every", "weight_decay", "momentum"):
        if getattr(chosen, name) < 0:
            raise StudyError(f"parameter {name} must be 0 or more, not {getattr(chosen, name)!r}")
    if chosen.train_size < chosen.image_size:
        raise StudyError(f"train_size {chosen.train_size} is smaller than the crop, image_size {chosen.image_size}")
    if chosen.stage not in (stages := VARIANTS[chosen.variant].stages):
        raise StudyError(f"variant {chosen.variant} has no stage {chosen.stage}, only {', '.join(map(str, stages))}")


def inherit(child: Settings, parent: Settings) -> Settings:
    """The child stage's settings with what a run decides once, in stage 1."""
    return replace(child, **{name: getattr(parent, name) for name in INHERITED})
