"""The other systems of Tables 1 and 2, and later ones, as rows on the same features (which is which: SYSTEMS).

A system takes the place of stage 1's classifier: it learns from the backbone of a complete stage 1, which stands still,
and leaves `runs/<dataset>/<system>/seed<k>/stage1` as stages do. `python -m attnsem.analysis.systems cnn_svm -p dataset
scenes` trains one, with `--draws 12` it is chosen on val first (training.py). This file needs no torch: tables read it.

What the module of a system (`System.module`, a file beside this one) provides:

    SETTINGS = {"C": 1.0}                 its own parameters, each with its default, whose type counts
    space(random) -> dict                 a draw of some of them from a numpy Generator, for the search on val
    fit(train, settings, *, seed, progress) -> dict of tensors
    scores(state, examples, settings) -> (N, C) float array, logits: above 0 where a label is told

train, examples: examples.Examples of a split: `targets` (N, C) in {1, 0, −1 = left out}, `labels`, `ids`; what it
learns from, computed once asked for: `pooled()` (N, V, K), `features` (maps in batches), `images` (N, S, S, 3 uint8),
`boxes`; `device`. Test images have V = 1 view.
settings: SETTINGS with what System.fixed, the search and the caller give in their place.
seed: all chance comes from it.
progress: of what trains by epochs: `progress.state` is what the last `progress.save(row, state)` had, None at first.
A row of `save` is a line of history.csv, {"epoch": 1, "loss": …}; `state` are plain tensors and numbers.
gradient.train is that loop, for torch modules. Bad input is a StudyError, raised before anything is written.
"""

from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType

from attnsem import StudyError


@dataclass(frozen=True)
class System:
    """name: in tables; printed: table and method of the paper whose numbers stand beside it, if any; fixed: settings
    that tell it from another row of the same module."""

    name: str
    module: str
    printed: tuple[str, str] | None = None
    fixed: dict[str, object] = field(default_factory=dict)


SYSTEMS = {  # by the folder of its runs
    "cnn_svm": System("CNN-SVM", "cnn_svm", ("1", "CNN-SVM")),
    "very_deep": System("Very deep", "very_deep", ("1", "Very deep")),
    "cnn_rnn": System("CNN-RNN", "cnn_rnn", ("1", "CNN-RNN")),
    "rlsd": System("RLSD", "rlsd", ("1", "RLSD")),
    "rlsd_without_boxes": System("RLSD, without boxes", "rlsd", ("1", "RLSD"), {"boxes": "without"}),
    "lda": System("LDA", "lda", ("2", "LDA"), {"inputs": "descriptors"}),
    "lda_cnn": System("LDA, CNN features", "lda", ("2", "LDA"), {"inputs": "features"}),
    "svm_rbf": System("SVM", "svm_rbf", ("2", "SVM"), {"inputs": "descriptors"}),
    "svm_rbf_cnn": System("SVM, CNN features", "svm_rbf", ("2", "SVM"), {"inputs": "features"}),
    "dbn": System("DBN", "dbn", ("2", "DBN"), {"inputs": "descriptors"}),
    "dbn_cnn": System("DBN, CNN features", "dbn", ("2", "DBN"), {"inputs": "features"}),
    "aiacnn": System("AIACNN", "aiacnn", ("2", "AIACNN"), {"voters": 1}),
    "mvaiacnn": System("MVAIACNN", "aiacnn", ("figure 3", "MVAIACNN"), {"voters": 5}),
    "csra": System("CSRA", "csra"),
    "ml_decoder": System("ML-Decoder", "ml_decoder"),
}
GROUP = "other systems"


def module_of(name: str) -> ModuleType:
    return import_module(f"{__name__}.{SYSTEMS[name].module}")


def check_name(name: str) -> None:
    if name not in SYSTEMS:
        raise StudyError(f"there is no system {name!r}; there are {', '.join(SYSTEMS)}")
