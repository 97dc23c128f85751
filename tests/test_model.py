"""Section 1 of the method, block by block, and what follows from its equations whatever the weights are."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn

from attnsem.losses import multilabel_loss
from attnsem.model import (
    Attention,
    Classifier,
    Fusion,
    Network,
    SEBlock,
    SemanticPart,
    attended_logits,
    gated,
    spatial_softmax,
)
from attnsem.paper import GATES, VARIANTS

LABELS, POSITIONS = 20, 14


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def features():
    return torch.rand(3, 1024, POSITIONS, POSITIONS)


class Trunk(nn.Conv2d):
    channels, stride = 16, 8

    def __init__(self):
        super().__init__(3, self.channels, self.stride, self.stride)


def network(variant, gate="literal"):
    return Network(backbone=Trunk(), labels=5, variant=VARIANTS[variant], gate=gate)


def test_shapes_of_section_2_1_and_2_2(features):
    z, a, s = Attention(channels=1024, labels=LABELS)(features)
    assert z.shape == a.shape == s.shape == (3, LABELS, POSITIONS, POSITIONS)
    assert Classifier(channels=1024, labels=LABELS)(features).shape == (3, LABELS)


def test_conv_att_is_the_papers():
    convs = [m for m in Attention(channels=1024, labels=LABELS).conv_att.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size, m.out_channels) for m in convs] == [((1, 1), 512), ((3, 3), 512), ((1, 1), LABELS)]


@pytest.mark.parametrize(
    ("variant", "blocks", "widths"),
    [
        ("att", [20], []),
        ("se", [1024, 256, 256, 512], [256, 256, 512, 1024]),
        ("proposed", [20, 256, 256, 512], [256, 256, 512, 1024]),
        ("se1_conv4", [20], [256, 256, 512, 1024]),
        ("se13_conv4", [20, 256], [256, 256, 512, 1024]),
        ("se5_conv5", [20, 256, 256, 512, 1024], [256, 256, 512, 1024, 1024]),
    ],
)
def test_semantic_part_of_each_variant(variant, blocks, widths):
    """SE blocks by the channels they weigh, convs by their width: Tables 3 and 4."""
    variant = VARIANTS[variant]
    channels = LABELS if variant.attention else 1024
    part = SemanticPart(channels=channels, labels=LABELS, variant=variant)
    assert [block.excitation[0].in_features for block in part.se.values()] == blocks
    assert [block[0].out_channels for block in part.convs.values()] == widths
    x = torch.rand(2, channels, POSITIONS, POSITIONS)
    assert part.forward_features(x).shape == (2, widths[-1] if widths else channels, POSITIONS, POSITIONS)
    assert part(x).shape == (2, LABELS)


def test_se_blocks_and_convs_alternate():
    """SE1 conv1 SE2 …: what a block weighs is what the conv before it gave."""
    part, seen = SemanticPart(channels=LABELS, labels=LABELS, variant=VARIANTS["se13_conv4"]), []
    for name, module in (*part.se.items(), *part.convs.items()):
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
    part(torch.rand(2, LABELS, 4, 4))
    assert seen == ["se1", "conv1", "conv2", "se3", "conv3", "conv4"]


def test_attention_sums_to_one_so_its_squeeze_is_constant(features):
    for x in (features, 100 * features, torch.zeros_like(features)):
        _, a, _ = Attention(channels=1024, labels=LABELS).eval()(x)
        assert a.mean((2, 3)).detach().numpy() == pytest.approx(1 / 196, rel=1e-5)


@pytest.mark.parametrize("gate", GATES)
def test_only_the_repaired_gates_depend_on_the_image(features, gate):
    features, attention = (
        features.double() * torch.tensor([0, 1, 9]).view(3, 1, 1, 1),
        Attention(channels=1024, labels=LABELS),
    )
    x, squeezed = gated(gate, *attention.double().eval()(features), features)
    se = SEBlock(channels=x.shape[1]).double()
    spread = se.excitation(squeezed.mean((2, 3))).std(0).max().item()
    assert spread < 1e-15 if gate == "literal" else spread > 1e-6
    assert x.shape == squeezed.shape


@pytest.mark.parametrize("gate", GATES)
def test_att_is_degenerate_unless_its_gate_is_repaired(gate):
    """Section 2.2's branch without convs adds one vector to every image, and conv_att gets no gradient."""
    net = network("att", gate).double().train()
    output = net(torch.rand(6, 3, 64, 64, dtype=torch.double))
    multilabel_loss(output.fused, torch.ones(6, 5)).backward()
    variance = output.semantic.var(0).max().item()
    gradient = net.attention.conv_att[-1].weight.grad.abs().max().item()
    if gate == "literal":
        assert variance < 1e-30 and gradient < 1e-15
    elif gate == "logits":
        assert variance > 1e-12
    else:
        assert variance > 1e-12 and gradient > 1e-9


def test_proposed_does_pass_a_gradient_to_the_attention():
    net = network("proposed").train()
    output = net(torch.rand(6, 3, 64, 64))
    multilabel_loss(output.fused, torch.ones(6, 5)).backward()
    assert net.attention.conv_att[-1].weight.grad.abs().max() > 1e-7


def test_se_block_is_equations_5_to_7():
    block, x = SEBlock(channels=32), torch.rand(2, 32, 5, 5)
    w1, b1, w2, b2 = (p.detach().numpy() for p in block.parameters())
    hidden = np.maximum(x.numpy().mean((2, 3)) @ w1.T + b1, 0)
    gate = 1 / (1 + np.exp(-(hidden @ w2.T + b2)))
    assert block(x).detach().numpy() == pytest.approx(x.numpy() * gate[:, :, None, None], rel=1e-5)


def test_fusion_starts_at_048_and_stays_between_0_and_1():
    fusion, ones = Fusion(), torch.ones(1, 2)
    assert fusion(ones, 0 * ones).tolist() == pytest.approx(np.full((1, 2), 0.48))
    for value, clamped in ((1.2, 1.0), (-0.3, 0.0), (0.6, 0.6)):
        fusion.alpha.data.fill_(value)
        fusion.clamp()
        assert fusion.alpha.item() == pytest.approx(clamped)


@pytest.mark.parametrize(
    ("variant", "parts"),
    [
        ("densenet", {"baseline"}),
        ("att", {"baseline", "attended", "attention", "semantic", "fused"}),
        ("se", {"baseline", "semantic", "fused"}),
        ("proposed", {"baseline", "attended", "attention", "semantic", "fused"}),
    ],
)
def test_outputs_of_a_variant(variant, parts):
    output = network(variant)(torch.rand(2, 3, 64, 64))
    found = {name: part for name, part in output._asdict().items() if part is not None}
    assert set(found) == parts
    assert all(part.shape == ((2, 5, 8, 8) if name == "attention" else (2, 5)) for name, part in found.items())


def test_features_and_head_are_the_whole_network():
    net, images = network("proposed").eval(), torch.rand(2, 3, 64, 64)
    assert torch.equal(net(images).fused, net(features=net.forward_features(images)).fused)


def test_loss_sums_over_labels_and_averages_over_images():
    logits, targets = torch.randn(7, 4), torch.randint(0, 2, (7, 4))
    expected = sum(log_loss(targets[:, c], logits[:, c].double().sigmoid(), labels=[0, 1]) for c in range(4))
    assert multilabel_loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("difficult", "target"), [("negative", 0), ("positive", 1), ("ignore", None)])
def test_difficult_labels_in_the_loss(difficult, target):
    logits, targets = torch.randn(2, 3, requires_grad=True), torch.tensor([[1, 0, -1], [0, 1, 1]])
    loss = multilabel_loss(logits, targets, difficult)
    if target is None:
        loss.backward()
        assert logits.grad[0, 2] == 0 and (logits.grad != 0).sum() == 5
    else:
        targets[0, 2] = target
        assert loss.item() == pytest.approx(multilabel_loss(logits, targets).item())


def test_scores_are_float32_under_autocast():
    classifier, x = Classifier(channels=8, labels=3), torch.randn(2, 8, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = classifier(x), classifier(x.bfloat16())
    assert torch.equal(found[0], classifier(x)) and found[1].dtype == torch.float32
    z, s = torch.rand(2, 2, 5, 4, 4).bfloat16()
    assert attended_logits(spatial_softmax(z), s).dtype == torch.float32
