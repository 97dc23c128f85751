from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

DIFFICULT_AS = {"negative": 0, "positive": 1}


def multilabel_loss(
    logits: Tensor, targets: Tensor, difficult: str = "ignore", images: int | None = None, over_labels: str = "sum"
) -> Tensor:
    """Eq. (10) with the minus sign it lacks in print: summed over labels (or their mean), mean over the batch.

    logits: (N, C). targets: (N, C), 1 present, 0 absent, -1 difficult, which is ignored or read as
    negative or positive. images: those of the whole batch, where these are one process's share of it.
    """
    if difficult != "ignore":
        targets = targets.masked_fill(targets < 0, DIFFICULT_AS[difficult])
    loss = binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none")
    terms = 1 if over_labels == "sum" else logits.shape[1]
    return loss.masked_fill(targets < 0, 0).sum() / ((images or len(logits)) * terms)
