"""Section 2 of the paper, top to bottom. N images, C labels, D backbone channels, h x w positions (14 x 14)."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attnsem.paper import ALPHA, VARIANTS, Variant


def conv_block(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU; the last two are ours: without them average pooling sees a linear map."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Classifier(nn.Module):
    """Average pooling and a fully connected layer, as for y' and ỹ: (N, D, h, w) -> (N, C) logits.

    In float32 under autocast too: bfloat16's 8 bits would give every other image the score of another.
    Controls pool by the greatest value, or have a hidden layer (hidden units, 0 for none) and ReLU.
    """

    def __init__(self, *, channels: int, labels: int, pool: str = "average", hidden: int = 0):
        super().__init__()
        self.pool = pool
        self.hidden = nn.Linear(channels, hidden) if hidden else None
        self.fc = nn.Linear(hidden or channels, labels)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.fc.weight.dtype)
            x = x.amax((2, 3)) if self.pool == "max" else x.mean((2, 3))
            return self.fc(x if self.hidden is None else self.hidden(x).relu())


def spatial_softmax(z: Tensor) -> Tensor:
    """Eq. (4): each label's channel sums to one over the positions. (N, C, h, w) -> (N, C, h, w)."""
    at_least_float32 = torch.promote_types(z.dtype, torch.float32)
    return z.flatten(2).softmax(2, dtype=at_least_float32).view(z.shape)


def grouped(z: Tensor, per_label: int) -> Tensor:
    """Z (N, C, h, w) of groups of channels (N, C per_label, h, w): its softmax is the mean of their softmaxes.

    What a softmax does not see, the level of Z, is the mean of the group's levels (log Σ exp).
    """
    z = z.float().unflatten(1, (-1, per_label))
    level = z.flatten(3).logsumexp(3)[..., None, None]
    return (z - level).logsumexp(2) - math.log(per_label) + level.mean(2)


class Attention(nn.Module):
    """Section 2.2, eq. (3) and (4): one channel a label.

    Ours, after Zhu et al. 2017 (whose conv_att this is): the confidence maps S, by which stage 2 has a
    training signal, and normalisation and activation between the convolutions. The paper's future work:
    per_label channels for each label, whose attentions are averaged.
    """

    def __init__(self, *, channels: int, labels: int, per_label: int = 1):
        super().__init__()
        self.per_label = per_label
        first, second = conv_block(channels, 512), conv_block(512, 512, kernel=3)
        self.conv_att = nn.Sequential(first, second, nn.Conv2d(512, labels * per_label, 1))
        self.confidence = nn.Conv2d(channels, labels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: (N, D, h, w) features. Returns Z, A and S, each (N, C, h, w)."""
        z = self.conv_att(x)
        if self.per_label > 1:
            z = grouped(z, self.per_label)
        return z, spatial_softmax(z), self.confidence(x)


def attended_logits(attention: Tensor, confidence: Tensor) -> Tensor:
    """Zhu et al. 2017: ŷ_att, confidence averaged under the attention. A, S: (N, C, h, w) -> (N, C)."""
    return (attention * confidence).sum((2, 3))


class SEBlock(nn.Module):
    """Eq. (5) to (7): squeeze, excite, rescale. (N, K, h, w) -> (N, K, h, w).

    Departs from eq. (6), which prints a sigmoid for both layers, by the ReLU of Hu et al. 2018 after the
    first. Reduction 16 is theirs; at least 4 hidden units are ours, since K may be as small as 20 labels.
    """

    def __init__(self, *, channels: int, reduction: int = 16):
        super().__init__()
        hidden = max(channels // reduction, 4)
        reduce, expand = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.excitation = nn.Sequential(reduce, nn.ReLU(inplace=True), expand, nn.Sigmoid())

    def forward(self, x: Tensor, squeezed: Tensor | None = None) -> Tensor:
        """squeezed: (N, K, h, w), what eq. (5) averages where that is not x itself."""
        source = x if squeezed is None else squeezed
        return x * self.excitation(source.mean((2, 3)))[..., None, None]


class SemanticPart(nn.Module):
    """Section 2.3, eq. (8): SE blocks before 1×1 convs, then pooling and a layer for ỹ: (N, K, h, w) -> (N, C).

    A control has each SE block after its conv, where even the first one's squeeze depends on the image.
    """

    def __init__(self, *, channels: int, labels: int, variant: Variant):
        super().__init__()
        widths = (channels, *variant.convs)
        self.se_after = variant.se_after
        self.se = nn.ModuleDict({f"se{k}": SEBlock(channels=widths[k - 1 + self.se_after]) for k in variant.se})
        self.convs = nn.ModuleDict({f"conv{k}": conv_block(*widths[k - 1 : k + 1]) for k in range(1, len(widths))})
        self.classifier = Classifier(channels=widths[-1], labels=labels)

    def forward_features(self, x: Tensor, squeezed: Tensor | None = None) -> Tensor:
        """squeezed: what SE1 averages instead of x. Returns M: (N, last conv's width, h, w)."""
        for k in range(1, max(len(self.se), len(self.convs)) + 1):
            if f"se{k}" in self.se and not self.se_after:
                x = self.se[f"se{k}"](x, squeezed if k == 1 else None)
            if f"conv{k}" in self.convs:
                x = self.convs[f"conv{k}"](x)
            if f"se{k}" in self.se and self.se_after:
                x = self.se[f"se{k}"](x)
        return x

    def forward(self, x: Tensor, squeezed: Tensor | None = None) -> Tensor:
        return self.classifier(self.forward_features(x, squeezed))


class GroupedPart(nn.Module):
    """A control: SemanticPart's convs with no path between labels and no SE: (N, C, h, w) -> (N, C).

    Groups of 1/√C of the widths have together as many weights as convs of these widths.
    """

    def __init__(self, *, labels: int, convs: tuple[int, ...]):
        super().__init__()
        widths = [labels, *(labels * round(width / math.sqrt(labels)) for width in convs)]
        self.convs = nn.Sequential(*(conv_block(*pair, groups=labels) for pair in pairwise(widths)))
        self.fc = nn.Conv2d(widths[-1], labels, 1, groups=labels)

    def forward(self, x: Tensor, squeezed: Tensor | None = None) -> Tensor:
        pooled = self.convs(x).mean((2, 3), keepdim=True)
        with torch.autocast(x.device.type, enabled=False):
            return self.fc(pooled.to(self.fc.weight.dtype)).flatten(1)


def gated(gate: str, z: Tensor, a: Tensor, s: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What the semantic part reads and what its SE1 squeezes, each (N, C, h, w).

    "literal" squeezes A, whose mean is 1/(h w) for every image and label; "logits" squeezes Z, before the
    softmax; "confidence" reads σ(S) ∘ A, as Zhu et al. 2017 do; "signed" S ∘ A; "pooled", of x (N, D, h, w), the
    features that each label attends to, Σ a_ij x_ij, with the labels as positions: (N, D, C, 1).
    """
    if gate == "logits":
        return a, z
    if gate == "pooled":
        read = torch.einsum("nchw,ndhw->ndc", a, x.to(a.dtype))[..., None]
    else:
        read = {"literal": a, "confidence": s.to(a.dtype).sigmoid() * a, "signed": s.to(a.dtype) * a}[gate]
    return read, read


def shuffled(*maps: Tensor) -> tuple[Tensor, ...]:
    """A control: each image's channels in another order, the same for all the maps (N, C, h, w)."""
    order = torch.rand(maps[0].shape[:2], device=maps[0].device).argsort(1)[..., None, None]
    return tuple(part.gather(1, order.expand_as(part)) for part in maps)


def head_of(variant: Variant, *, channels: int, labels: int, gate: str) -> nn.Module | None:
    """What gives ỹ where attention alone does not. The two-layer control has as many parameters as `proposed`."""
    if variant.head == "semantic":
        from_maps = variant.attention and gate != "pooled"
        return SemanticPart(channels=labels if from_maps else channels, labels=labels, variant=variant)
    if variant.head == "grouped":
        return GroupedPart(labels=labels, convs=variant.convs)
    if variant.head in ("average", "max"):
        return Classifier(channels=channels, labels=labels, pool=variant.head)
    if variant.head == "two_layer":
        with torch.device("meta"):
            attention = Attention(channels=channels, labels=labels)
            semantic = SemanticPart(channels=labels, labels=labels, variant=VARIANTS["proposed"])
        parameters = sum(p.numel() for p in (*attention.parameters(), *semantic.parameters()))
        return Classifier(channels=channels, labels=labels, hidden=parameters // (channels + labels + 1))
    return None


class Fusion(nn.Module):
    """Eq. (9): ŷ = α y' + (1 − α) ỹ, α in [0, 1] learned from 0.48.

    How it is kept there the paper does not say: "clamped" after each step, the "sigmoid" of the parameter, not at all
    ("unbounded"), "fixed" at its start, or "warm-up": fixed for the first epochs and then clamped.
    """

    def __init__(self, reading: str = "clamped", warmup: int = 1):
        super().__init__()
        self.reading, self.warmup = reading, warmup
        self.alpha = nn.Parameter(torch.tensor(math.log(ALPHA / (1 - ALPHA)) if reading == "sigmoid" else ALPHA))

    @property
    def weight(self) -> Tensor:
        """α itself."""
        return self.alpha.sigmoid() if self.reading == "sigmoid" else self.alpha

    def forward(self, baseline: Tensor, semantic: Tensor) -> Tensor:
        return self.weight * baseline + (1 - self.weight) * semantic

    def is_fixed(self, epoch: int) -> bool:
        """epoch: from 0."""
        return self.reading == "fixed" or (self.reading == "warm-up" and epoch < self.warmup)

    @torch.no_grad()
    def keep(self, epoch: int) -> None:
        """α where its reading wants it, after a step."""
        if self.is_fixed(epoch):
            self.alpha.fill_(ALPHA)
        elif self.reading in ("clamped", "warm-up"):
            self.alpha.clamp_(0, 1)


class Output(NamedTuple):
    """Logits (N, C): y' (baseline), ŷ_att (attended), ỹ (semantic), ŷ (fused), and A (N, C, h, w); None
    where the network has no such part."""

    baseline: Tensor
    attended: Tensor | None = None
    semantic: Tensor | None = None
    fused: Tensor | None = None
    attention: Tensor | None = None


class Network(nn.Module):
    """Figure 1: the backbone's classifier, and the attention and semantic parts that a variant has."""

    def __init__(
        self,
        *,
        backbone: nn.Module,
        labels: int,
        variant: Variant,
        gate: str = "literal",
        alpha: str = "clamped",
        alpha_warmup: int = 1,
        per_label: int = 1,
    ):
        """alpha, alpha_warmup: Fusion's; per_label: attention channels of each label."""
        super().__init__()
        self.gate, self.variant = gate, variant
        self.backbone = backbone
        sizes = {"channels": backbone.channels, "labels": labels}
        self.classifier = Classifier(**sizes)
        self.attention = Attention(**sizes, per_label=per_label) if variant.attention else None
        self.semantic = head_of(variant, **sizes, gate=gate)
        self.fusion = Fusion(alpha, alpha_warmup) if variant.fused and variant.head != "none" else None

    def forward_features(self, images: Tensor) -> Tensor:
        """images: (N, 3, H, W) in [0, 1]. Returns X of eq. (2): (N, D, h, w)."""
        return self.backbone(images)

    def forward_maps(self, x: Tensor) -> Tensor:
        """What stage 3 needs of X (N, D, h, w): y′ at every position, Z and S, (N, 3 C, h, w) float32."""
        z, _, s = self.attention(x)
        return torch.cat([self.classifier(x)[..., None, None].expand_as(z), z, s], 1).float()

    def forward_head(self, x: Tensor | None = None, maps: Tensor | None = None) -> Output:
        """x: (N, D, h, w) features, or maps: those of forward_maps."""
        if maps is None:
            baseline = self.classifier(x)
            z, a, s = self.attention(x) if self.attention is not None else (None, None, None)
        else:
            baseline, z, s = maps.chunk(3, 1)
            baseline, a = baseline[:, :, 0, 0], spatial_softmax(z)
        attended = None if a is None else attended_logits(a, s)
        reads_maps = a is not None and self.variant.head in ("semantic", "grouped")
        read = gated(self.gate, z, a, s, x) if reads_maps else (x,)
        if self.variant.shuffled:
            read = shuffled(*read)
        semantic = None if self.semantic is None else self.semantic(*read)
        second = attended if semantic is None else semantic
        fused = None if self.fusion is None else self.fusion(baseline, second)
        return Output(baseline, attended, semantic, fused, attention=a)

    def forward(
        self, images: Tensor | None = None, features: Tensor | None = None, maps: Tensor | None = None
    ) -> Output:
        """Images or, where what comes before is frozen and cached, the backbone's features or the attention's maps."""
        if images is not None:
            features = self.forward_features(images)
        return self.forward_head(features, maps)
