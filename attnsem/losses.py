from collections.abc import Callable
from functools import partial

from torch import Tensor, full_like, logaddexp
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from attnsem.paper import Settings


def multilabel_loss(
    logits: Tensor, targets: Tensor, difficult: str = "ignore", images: int = 0, over_labels: str = "sum", asl=()
) -> Tensor:
    """Eq. (10) with the minus sign it lacks in print: summed over labels (or their mean), mean over the batch.

    logits: (N, C). targets: (N, C), 1 present, 0 absent, -1 difficult, which is ignored or read as
    negative or positive. images: those of the whole batch, where these are one process's share of it.
    asl: γ₋, γ₊ and margin of `asymmetric`, in place of cross-entropy.
    """
    if difficult != "ignore":
        targets = targets.masked_fill(targets < 0, difficult == "positive")
    of_label = asymmetric if asl else partial(binary_cross_entropy_with_logits, reduction="none")
    loss = of_label(logits.float(), targets.float(), *asl)
    terms = 1 if over_labels == "sum" else logits.shape[1]
    return loss.masked_fill(targets < 0, 0).sum() / ((images or len(logits)) * terms)


def asymmetric(logits: Tensor, targets: Tensor, gamma_neg: float, gamma_pos: float, clip: float) -> Tensor:
    """Ben-Baruch et al. 2021, of each label: -y (1 - p)^γ₊ log p - (1 - y) q^γ₋ log(1 - q), q = max(p - clip, 0)."""
    absent = logsigmoid(-logits)
    shifted = logaddexp(absent, full_like(absent, clip).log()).clamp(max=0)  # log(1 - q), also where p is near 1
    focus = shifted.expm1().neg().clamp(min=1e-12) ** gamma_neg
    return -targets * (gamma_pos * absent).exp() * logsigmoid(logits) - (1 - targets) * focus * shifted


def loss_of(settings: Settings, images: int = 0) -> Callable[[Tensor, Tensor], Tensor]:
    asl = (settings.gamma_neg, settings.gamma_pos, settings.clip) if settings.loss == "asl" else ()
    own = {"difficult": settings.difficult, "over_labels": settings.label_loss, "asl": asl}
    return partial(multilabel_loss, images=images, **own)
