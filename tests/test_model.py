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
    GroupedPart,
    Network,
    SEBlock,
    SemanticPart,
    attended_logits,
    gated,
    grouped,
    shuffled,
    spatial_softmax,
)
from attnsem.paper import CONTROLS, CONVS, GATES, VARIANTS

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
    return Network(backbone=Trunk(), labels=5, variant=(VARIANTS | CONTROLS)[variant], gate=gate)


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
        fusion.keep(epoch=0)
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
    mean = multilabel_loss(logits, targets, over_labels="mean").item()
    assert mean == pytest.approx(expected / logits.shape[1], rel=1e-5)


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


CONTROL_PARTS = {
    "attention_pooling": {"baseline", "attended", "attention", "fused"},
    "two_layer": {"baseline", "semantic"},
    "two_layer_fused": {"baseline", "semantic", "fused"},
    "max": {"baseline", "semantic"},
    "shuffled": {"baseline", "attended", "attention", "semantic", "fused"},
}


@pytest.mark.parametrize("name", CONTROL_PARTS)
def test_outputs_of_a_control(name):
    output = network(name)(torch.rand(2, 3, 64, 64))
    assert {part for part, found in output._asdict().items() if found is not None} == CONTROL_PARTS[name]


def test_the_two_layer_control_has_as_many_parameters_as_proposed():
    def count(*parts):
        return sum(p.numel() for part in parts for p in part.parameters())

    ours, control = network("proposed"), network("two_layer")
    assert count(control.semantic) == pytest.approx(count(ours.attention, ours.semantic), rel=1e-4)


def test_the_max_control_pools_by_the_greatest_value():
    x, head = torch.rand(2, 16, 4, 4), network("max").semantic
    assert torch.equal(head(x), head.fc(x.flatten(2).max(2).values))


def test_attention_pooling_fuses_the_attention_without_a_semantic_part():
    net = network("attention_pooling")
    output = net(torch.rand(2, 3, 64, 64))
    assert torch.allclose(output.fused, 0.48 * output.baseline + 0.52 * output.attended)


def test_shuffling_gives_each_image_its_own_order_of_whole_channels():
    a, z = torch.rand(2, 40, 6, 3, 3)
    first, second = shuffled(a, z)
    for before, after in ((a, first), (z, second)):
        assert torch.equal(before.flatten(2).sum(2).sort(1).values, after.flatten(2).sum(2).sort(1).values)
    orders = [[(a[i] == channel).all((1, 2)).nonzero().item() for channel in first[i]] for i in range(40)]
    assert len({tuple(order) for order in orders}) > 30
    assert all(torch.equal(second[i], z[i][order]) for i, order in enumerate(orders))


@pytest.mark.parametrize("gate", [gate for gate in GATES if gate != "pooled"])
def test_maps_are_all_that_the_semantic_part_needs(gate):
    net, images = network("proposed", gate).eval(), torch.rand(2, 3, 64, 64)
    x = net.forward_features(images)
    whole, from_maps = net(images), net(maps=net.forward_maps(x))
    for one, other in zip(whole, from_maps, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_pooled_features_are_those_that_each_label_attends_to():
    z, s, x = torch.randn(2, 5, 3, 3), torch.randn(2, 5, 3, 3), torch.randn(2, 7, 3, 3)
    a = spatial_softmax(z)
    read, _ = gated("pooled", z, a, s, x)
    assert read.shape == (2, 7, 5, 1)
    assert read[1, 3, 2, 0].item() == pytest.approx((a[1, 2] * x[1, 3]).sum().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("reading", "raised", "fixed"),
    [
        ("clamped", 1.0, [False, False]),
        ("sigmoid", 1 / (1 + np.exp(-1.3)), [False, False]),
        ("unbounded", 1.3, [False, False]),
        ("warm-up", 1.0, [True, False]),
        ("fixed", 0.48, [True, True]),
    ],
)
def test_readings_of_alpha(reading, raised, fixed):
    fusion, ones = Fusion(reading), torch.ones(1, 2)
    assert fusion.weight.item() == pytest.approx(0.48)
    assert fusion(ones, 0 * ones).tolist() == pytest.approx(np.full((1, 2), 0.48))
    assert [fusion.is_fixed(epoch) for epoch in (0, 1)] == fixed
    fusion.alpha.data.fill_(1.3)
    fusion.keep(epoch=1)
    assert fusion.weight.item() == pytest.approx(raised)


def test_the_grouped_control_has_no_path_between_labels_and_as_many_weights():
    part = GroupedPart(labels=20, convs=CONVS).eval()
    x = torch.rand(2, 20, 4, 4)
    changed = x.clone()
    changed[:, 7] += 1
    moved = (part(x) != part(changed)).any(0)
    assert moved.nonzero().flatten().tolist() == [7]
    full = SemanticPart(channels=20, labels=20, variant=CONTROLS["no_se"])
    count = {name: sum(p.numel() for p in net.parameters() if p.dim() == 4) for name, net in (("g", part), ("f", full))}
    assert count["g"] == pytest.approx(count["f"], rel=0.03)


def test_se_after_a_conv_is_squeezed_from_what_that_conv_gives():
    part = SemanticPart(channels=20, labels=20, variant=CONTROLS["se_after"]).eval()
    assert [se.excitation[0].in_features for se in part.se.values()] == list(CONVS)
    x = torch.rand(2, 20, 4, 4)
    expected = x
    for k in range(1, 5):
        expected = part.se[f"se{k}"](part.convs[f"conv{k}"](expected))
    assert torch.equal(part.forward_features(x), expected)
    assert not SemanticPart(channels=20, labels=20, variant=CONTROLS["no_se"]).se


def test_a_groups_attention_is_the_mean_of_its_channels():
    z = 5 * torch.randn(2, 6, 4, 4)
    each = spatial_softmax(z).unflatten(1, (3, 2)).mean(2)
    assert torch.allclose(spatial_softmax(grouped(z, 2)), each, atol=1e-6)
    assert torch.allclose(grouped(z, 1), z, atol=1e-5)


def test_several_channels_a_label_leave_everything_after_them_as_it_is():
    one, two = (
        Network(backbone=Trunk(), labels=5, variant=VARIANTS["proposed"], per_label=per_label) for per_label in (1, 2)
    )
    images = torch.rand(2, 3, 32, 32)
    assert one(images).attention.shape == two(images).attention.shape == (2, 5, 4, 4)
    assert torch.allclose(two(images).attention.sum((2, 3)), torch.ones(2, 5))
    assert {k for k, v in one.state_dict().items() if v.shape != two.state_dict()[k].shape} == {
        "attention.conv_att.2.weight",
        "attention.conv_att.2.bias",
    }
