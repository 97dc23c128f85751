"""The localisation layer of RLSD: anchors, their confidences and offsets, the regions that it chooses, its loss.

torchvision's RegionProposalNetwork gives no confidences of the boxes that it returns, which labels are to train, and
trains by boxes alone. Boxes are corners, anchors middles, widths and heights, both (…, 4) as fractions of the sides.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss
from torchvision.ops import box_convert, box_iou, clip_boxes_to_image, nms

SIDES, RATIOS = (0.2, 0.35, 0.6, 0.9), (0.5, 1.0, 2.0)  # of the image's; of height to width
KINDS = len(SIDES) * len(RATIOS)
CANDIDATES = 300  # of an image, before suppression
POSITIVE, NEGATIVE, SUPPRESSED = 0.7, 0.3, 0.7  # IoU
SAMPLED = 64  # anchors of an image that the loss is taken of


def anchors(h: int, w: int) -> Tensor:
    """(h w KINDS, 4), position by position."""
    y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
    sizes = torch.tensor([(side * ratio**-0.5, side * ratio**0.5) for side in SIDES for ratio in RATIOS])
    middles = torch.stack([x, y], -1).view(-1, 1, 2).expand(-1, len(sizes), -1)
    return torch.cat([middles, sizes.expand(h * w, -1, -1)], -1).flatten(0, 1)


def moved(places: Tensor, offsets: Tensor) -> Tensor:
    """Anchors moved and scaled by offsets (…, 4), as boxes within the image."""
    middle = places[..., :2] + offsets[..., :2] * places[..., 2:]
    size = places[..., 2:] * offsets[..., 2:].clamp(-4, 4).exp()
    return clip_boxes_to_image(box_convert(torch.cat([middle, size], -1), "cxcywh", "xyxy"), (1, 1))


def offsets_to(boxes: Tensor, places: Tensor) -> Tensor:
    """What moves anchors to boxes."""
    target = box_convert(boxes, "xyxy", "cxcywh")
    shift = (target[..., :2] - places[..., :2]) / places[..., 2:]
    return torch.cat([shift, (target[..., 2:] / places[..., 2:]).log()], -1)


def surest(boxes: Tensor, confidence: Tensor, count: int) -> Tensor:
    """Of boxes (A, 4): indices (count,) of the surest after suppression, some of them again where there are fewer."""
    order = confidence.topk(min(CANDIDATES, len(confidence))).indices
    kept = order[nms(boxes[order], confidence[order], SUPPRESSED)]
    return kept[torch.arange(count, device=kept.device) % len(kept)]


class Located(NamedTuple):
    """Of A anchors (A, 4): confidence (N, A) logits and offsets (N, A, 4)."""

    anchors: Tensor
    confidence: Tensor
    offsets: Tensor


class Localisation(nn.Module):
    """Maps (N, channels, h, w) -> Located. The offsets begin at 0, where boxes are the anchors."""

    def __init__(self, channels: int):
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        self.confidence, self.offsets = nn.Conv2d(channels, KINDS, 1), nn.Conv2d(channels, 4 * KINDS, 1)
        for parameter in self.offsets.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Located:
        maps = self.maps(x)
        confidence = self.confidence(maps).permute(0, 2, 3, 1).flatten(1).float()
        offsets = self.offsets(maps).permute(0, 2, 3, 1).reshape(len(x), -1, 4).float()
        return Located(anchors(*x.shape[2:]).to(offsets), confidence, offsets)

    def choose(self, located: Located, count: int) -> tuple[Tensor, Tensor]:
        """Regions' boxes (N, count, 4) and confidences (N, count), which alone have a gradient.

        In training the choice is random, the likelier the surer: confidences with Gumbel's noise.
        """
        boxes, ranked = moved(located.anchors, located.offsets.detach()), located.confidence.detach()
        if self.training:
            ranked = ranked - torch.rand_like(ranked).clamp(min=1e-12).log().neg().log()
        chosen = torch.stack([surest(*image, count) for image in zip(boxes, ranked, strict=True)])
        return boxes.gather(1, chosen[..., None].expand(-1, -1, 4)), located.confidence.gather(1, chosen)


def localisation_loss(located: Located, boxes: list[Tensor]) -> Tensor:
    """Cross-entropy of the confidence of some anchors, half of them positive at most, and smooth L1 of the positive
    ones' offsets; mean over the images. boxes: (M, 4) of each image's objects."""
    corners, losses = box_convert(located.anchors, "cxcywh", "xyxy"), []
    for confidence, offsets, own in zip(located.confidence, located.offsets, boxes, strict=True):
        iou = torch.cat([box_iou(corners, own), corners.new_zeros(len(corners), 1)], 1)  # the last: of no box
        best, which = iou.max(1)
        is_best = ((iou == iou.amax(0)) & (iou > 0)).any(1)
        positive = some((best >= POSITIVE) | is_best, SAMPLED // 2)
        negative = some((best < NEGATIVE) & ~is_best, SAMPLED - len(positive))
        is_object = torch.cat([torch.ones_like(best[positive]), torch.zeros_like(best[negative])])
        loss = binary_cross_entropy_with_logits(confidence[torch.cat([positive, negative])], is_object)
        if len(positive):
            aim = offsets_to(own[which[positive]], located.anchors[positive])
            loss = loss + smooth_l1_loss(offsets[positive], aim)
        losses.append(loss)
    return torch.stack(losses).mean()


def some(is_one: Tensor, most: int) -> Tensor:
    """Indices of at most so many that are one, at random."""
    places = torch.nonzero(is_one).flatten()
    return places[torch.rand(len(places), device=places.device).argsort()[:most]]
