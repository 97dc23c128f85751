"""Systems that are networks: each does on small inputs what its paper says it does."""

import shutil
from itertools import chain, permutations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.ops import box_convert, box_iou

from attnsem import StudyError, stages
from attnsem.analysis.systems import module_of, objects, region_figure, regions, rlsd
from attnsem.analysis.systems.cnn_rnn import CNNRNN, by_frequency
from attnsem.analysis.systems.csra import CSRA, TEMPERATURES
from attnsem.analysis.systems.ml_decoder import Decoder
from attnsem.analysis.systems.rlsd import RLSD
from attnsem.analysis.systems.task import Progress, settings_of
from attnsem.analysis.systems.training import train
from attnsem.datasets.arrays import Views
from attnsem.datasets.features import VIEWS_SEED
from attnsem.model import Classifier


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def learnt(network, steps, loss):
    optimizer = torch.optim.AdamW(network.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return network.eval()


def test_csra_without_its_residual_is_the_baseline():
    network, baseline = CSRA(channels=8, labels=3, residual=0), Classifier(channels=8, labels=3)
    baseline.fc.load_state_dict({"weight": network.scores.weight[..., 0, 0], "bias": network.scores.bias})
    x = torch.rand(2, 8, 4, 4)
    assert torch.allclose(network(x), baseline(x), atol=1e-6)


@pytest.mark.parametrize("heads", TEMPERATURES)
def test_csra_is_the_papers_sum_over_heads(heads):
    """Position by position, in numpy; the last of several heads is max pooling."""
    network, x = CSRA(channels=5, labels=3, heads=heads, residual=0.3).double(), torch.rand(2, 5, 2, 3).double()
    weight, bias = (part.detach().numpy() for part in (network.scores.weight, network.scores.bias))
    expected = np.zeros((2, 3))
    for n, label, head in np.ndindex(2, 3, heads):
        row = head * 3 + label
        s = np.array([weight[row, :, 0, 0] @ x[n, :, i, j].numpy() + bias[row] for i, j in np.ndindex(2, 3)])
        powers = np.exp({2: [1, 0], 4: [1, 2, 4, 0], 6: [1, 2, 3, 4, 5, 0]}.get(heads, [1])[head] * s)
        attended = s.max() if 0 < head == heads - 1 else (powers / powers.sum() * s).sum()
        expected[n, label] += s.mean() + 0.3 * attended
    assert network.double()(x).detach().numpy() == pytest.approx(expected, rel=1e-5)


def test_ml_decoder_gives_a_logit_a_label_whatever_their_number():
    for labels in (1, 3, 120):  # 100 queries at most: more labels share them
        network = Decoder(channels=6, labels=labels, width=16)
        assert network(torch.rand(2, 6, 3, 3)).shape == (2, labels)
    with pytest.raises(StudyError, match="width of ml_decoder must be a multiple of 8, not 20"):
        Decoder(channels=6, labels=3, width=20)


def test_ml_decoder_scores_are_float32_after_training_in_bfloat16():
    network, x = Decoder(channels=6, labels=3, width=16, is_mixed=True), torch.rand(64, 6, 3, 3)
    exact = Decoder(channels=6, labels=3, width=16)
    exact.load_state_dict(network.state_dict())
    assert torch.equal(network.eval()(x), exact.eval()(x))
    network.train()(x).sum().backward()
    assert network.decoder.embed_standart.weight.grad.dtype == torch.float32
    assert network.decoder.query_embed.weight.grad is None  # the queries are drawn once and stay


PATHS = ((4, 0, 2), (1, 3))  # label 4 is the most frequent, then 1; 5 never occurs


@pytest.fixture(scope="module")
def planted():
    """A CNN-RNN of images that say nothing, on two paths of which the first is twice as frequent."""
    torch.manual_seed(0)
    targets = torch.zeros(30, 6, dtype=torch.long)
    for image in range(30):
        targets[image, list(PATHS[image % 3 == 2])] = 1
    more = [[0, 1, 0, 0, 1, 0]] * 3 + [[1, 0, 0, 0, 0, 0]] * 2 + [[0, 0, 1, 0, 0, 0]]
    order = by_frequency(np.r_[targets.numpy(), more])
    network = CNNRNN(channels=4, order=order, longest=3, embedding=16, hidden=32, dropout=0)
    return learnt(network, 150, lambda: network.loss(torch.ones(30, 4), targets))


def test_cnn_rnn_says_labels_by_their_frequency(planted):
    assert planted.order.tolist()[:3] == [4, 0, 2] and planted.order.tolist()[-1] == 5
    assert planted.paths(torch.tensor([[1, 0, 1, 0, 1, 0], [0, 1, 0, -1, 0, 0], [0, 0, 0, 0, 0, 0]])).tolist() == [
        [4, 0, 2, 6], [1, 6, 6, 6], [6, 6, 6, 6],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prefix", "rest"), [((), [4, 0, 2]), ((4,), [0, 2]), ((4, 0), [2]), ((1,), [3]), ((1, 3), [])]
)
def test_cnn_rnn_predicts_the_rest_of_a_planted_path(planted, prefix, rest):
    _, paths = planted.search(torch.ones(2, 4), prefix)
    assert paths == [rest, rest]


def test_cnn_rnn_ranks_by_the_probability_of_the_label(planted):
    logits = planted(torch.ones(1, 4))[0]
    assert torch.allclose(logits.sigmoid()[[4, 0, 2]], torch.tensor(2 / 3).double(), atol=0.05)
    assert torch.allclose(logits.sigmoid()[[1, 3]], torch.tensor(1 / 3).double(), atol=0.05)
    assert logits.isfinite().all() and logits[5] < logits[:5].min() - 2


def enumerated(network, v, labels):
    """P(label) of one image over every path without a label twice, each label by label through the whole network."""
    probability = np.zeros(labels)
    for path in chain.from_iterable(permutations(range(labels), length) for length in range(labels + 1)):
        said, log = [network.end + 1], 0.0
        for word in (*path, network.end):
            outputs = network.lstm(network.embedding(torch.tensor([said])))[0][:, -1]
            logits = network.next_logits(outputs, network.of_image(v[None]), torch.tensor([said]))
            log += logits.double().log_softmax(-1)[0, word].item()
            said.append(word)
        probability[list(path)] += np.exp(log)
    return probability


@torch.no_grad()
def test_cnn_rnn_with_a_beam_of_all_paths_has_the_probability_itself():
    network = CNNRNN(channels=5, order=torch.tensor([1, 0, 2]), longest=3, embedding=4, hidden=6, width=6).eval()
    v = torch.randn(3, 5)
    probability, _ = network.search(v)
    for image in range(3):
        assert probability[image].numpy() == pytest.approx(enumerated(network, v[image], 3), rel=1e-6)
    network.width = 1
    assert (network.search(v)[0] <= probability + 1e-12).all()  # what a beam leaves out only lessens it


def test_cnn_rnn_learns_nothing_of_a_label_that_is_unknown():
    """Its score is out of the softmax, and with one label or none at all a path is short, not broken."""
    network = CNNRNN(channels=5, order=torch.arange(3), longest=3, embedding=4, hidden=6, dropout=0)
    v = torch.randn(2, 5)
    known, unknown = (network.loss(v, torch.tensor([[1, 0, last], [0, 1, last]])) for last in (0, -1))
    assert unknown < known
    unknown.backward()
    assert not network.embedding.weight.grad[2].any()
    one = CNNRNN(channels=5, order=torch.arange(1), longest=1, embedding=4, hidden=6)
    assert one.loss(v, torch.tensor([[1], [0]])).isfinite() and one.eval()(v).shape == (2, 1)


def test_anchors_lie_around_their_positions_and_move_by_their_offsets():
    places = regions.anchors(2, 3)
    assert places.shape == (2 * 3 * regions.KINDS, 4)
    assert places[[0, -1], :2].flatten().tolist() == pytest.approx([1 / 6, 1 / 4, 5 / 6, 3 / 4])
    sizes = places[: regions.KINDS, 2:]
    assert torch.allclose(sizes.prod(1).sqrt(), torch.tensor(regions.SIDES).repeat_interleave(3))
    assert torch.allclose((sizes[:, 1] / sizes[:, 0])[:3], torch.tensor(regions.RATIOS))
    aims = box_convert(torch.tensor([[0.2, 0.3, 0.1, 0.4], [0.5, 0.5, 0.9, 0.2]]), "cxcywh", "xyxy")
    assert torch.allclose(regions.moved(places[:2], regions.offsets_to(aims, places[:2])), aims, atol=1e-6)


def test_the_surest_regions_overlap_little_and_are_enough():
    corners = torch.tensor([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.49], [0.5, 0.5, 1, 1.0]])
    assert regions.surest(corners, torch.tensor([2.0, 3, 1]), 2).tolist() == [1, 2]
    assert regions.surest(corners, torch.tensor([2.0, 3, 1]), 5).tolist() == [1, 2, 1, 2, 1]


def examples_with(table, views=2, ids=("a", "b")):
    """Two images of 72 pixels of which a view is 64."""
    features = SimpleNamespace(views=np.zeros((3, views, 1, 1, 1)), rows=np.array([2, 0]))
    frame = pd.DataFrame(table, columns=["image", "label", "xmin", "ymin", "xmax", "ymax", "difficult"])
    settings = SimpleNamespace(train_size=72, image_size=64)
    prepared = SimpleNamespace(name="own")
    return SimpleNamespace(
        features=features, boxes=frame, settings=settings, views=views, ids=ids, split="trainval",
        source=SimpleNamespace(prepared=prepared),
    )  # fmt: skip


def test_boxes_are_where_a_cached_view_shows_their_pixels():
    """Against the view of an image whose object alone is white."""
    table = [("a", "x", 20 / 72, 30 / 72, 50 / 72, 36 / 72, 0), ("a", "x", 0, 0, 1 / 72, 1 / 72, 0)]
    seen, image = objects.Objects(examples_with(table)), np.zeros((1, 72, 72, 3), np.uint8)
    image[:, 30:36, 20:50] = 255
    flips = set()
    for view in range(2):
        crop = Views.drawn(3, 8, VIEWS_SEED, view)
        shown = crop.of(torch.from_numpy(image), np.array([2]), 64)[0, 0]
        rows, columns = torch.nonzero(shown, as_tuple=True)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert (64 * seen.of(0, view)[0]).tolist() == pytest.approx([int(side) for side in expected], abs=1e-4)
        flips.add(bool(crop.flip[2]))
        assert seen.of(1, view).shape == (0, 4)
        corner = len(seen.of(0, view)) == 2
        assert corner == bool(crop.top[2] == 0 and crop.left[2] == 0)
    assert flips == {False, True}


def test_boxes_that_are_asked_for_and_not_there_are_refused():
    with pytest.raises(StudyError, match="own has no boxes of its trainval images; give -p boxes without"):
        objects.learns_from_boxes(examples_with([]), "with")
    with pytest.raises(StudyError, match="boxes must be one of auto, with, without, not 'maybe'"):
        objects.learns_from_boxes(examples_with([]), "maybe")
    table = [("a", "x", 0, 0, 1, 1, 0)]
    choices = {
        choice: objects.learns_from_boxes(examples_with(table), choice) for choice in ("auto", "with", "without")
    }
    assert choices == {"auto": True, "with": True, "without": False}
    assert not objects.learns_from_boxes(examples_with([]), "auto")


@pytest.fixture(scope="module")
def blobs():
    """Maps (20, 6, 8, 8) with a blob of one of 2 kinds; where it is, as a box, and which kind."""
    random = np.random.default_rng(0)
    x, places = torch.zeros(20, 6, 8, 8), []
    for image, (left, top) in enumerate(random.integers(0, 5, (20, 2))):
        x[image, image % 2, top : top + 3, left : left + 3] = 1
        places.append(torch.tensor([[left, top, left + 3, top + 3]]) / 8)
    return x, places, torch.nn.functional.one_hot(torch.arange(20) % 2, 2)


def small_rlsd(labels=2):
    return RLSD(features=6, labels=labels, channels=8, code=16, hidden=16, steps=2, regions=4)


def test_the_localisation_layer_finds_the_objects_that_boxes_taught_it(blobs):
    x, places, _ = blobs
    layer = regions.Localisation(6)
    overlaps = []
    for steps in (0, 80):
        learnt(layer, steps, lambda: regions.localisation_loss(layer(x), places))
        found, _ = layer.choose(layer(x), 2)
        overlaps.append(np.mean([box_iou(own, place).max().item() for own, place in zip(found, places, strict=True)]))
    assert overlaps[0] < 0.4 and overlaps[1] > 0.8
    assert layer.offsets.weight.any()


def test_rlsd_learns_labels_and_boxes_together(blobs):
    x, places, targets = blobs
    network = small_rlsd()
    loss = rlsd.loss_with_boxes(network, (x, places), targets)
    loss.backward()
    assert network.classifier.weight.grad.any() and network.localisation.offsets.weight.grad.any()
    losses = []
    for own in (places, places, places[::-1]):
        torch.manual_seed(0)
        losses.append(rlsd.loss_with_boxes(network, (x, own), targets).item())
    assert losses[0] == losses[1] != losses[2]  # it matters whose boxes they are


@pytest.mark.parametrize("target", [0, -1])
def test_rlsd_of_one_label_that_never_occurs_and_of_images_without_objects_stays_finite(blobs, target):
    x, places, targets = blobs
    network, none = small_rlsd(1), [torch.zeros(0, 4) for _ in places]
    for own in (none, [places[0], *none[1:]]):
        network.zero_grad()
        loss = rlsd.loss_with_boxes(network, (x, own), torch.full_like(targets[:, :1], target))
        loss.backward()
        assert loss.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert network(x).shape == (20, 1) and network(x).isfinite().all()


def test_rlsd_without_boxes_learns_confidences_from_labels_and_its_regions_are_anchors(blobs):
    x, _, targets = blobs
    network = small_rlsd()
    before = network.localisation.confidence.weight.clone()
    learnt(network, 70, lambda: rlsd.multilabel_loss(network(x), targets))
    assert (network(x).argmax(1) == torch.arange(20) % 2).float().mean() > 0.9
    assert (
        not torch.equal(network.localisation.confidence.weight, before)
        and not network.localisation.offsets.weight.any()
    )
    with torch.no_grad():
        found = network.regions(x)[0]
    corners = regions.moved(regions.anchors(8, 8), torch.zeros(1, 4))
    assert box_iou(found.boxes[0], corners).amax(1).tolist() == pytest.approx([1] * 4, abs=1e-5)
    assert torch.equal(found.logits.amax(1), network(x))


def test_an_image_without_objects_has_no_positive_anchor():
    confidence = torch.zeros(1, 4 * regions.KINDS, requires_grad=True)
    offsets = torch.zeros(1, 4 * regions.KINDS, 4, requires_grad=True)
    located = regions.Located(regions.anchors(2, 2), confidence, offsets)
    regions.localisation_loss(located, [torch.zeros(0, 4)]).backward()
    assert (confidence.grad >= 0).all() and confidence.grad.any() and offsets.grad is None


def test_a_region_is_captioned_by_the_likely_labels_that_it_tells():
    logits = torch.tensor([[3.0, -9, 1, -2], [0, 2, -1, -3]])
    corners = torch.tensor([[0, 0, 0.5, 0.5], [0.5, 0, 1, 1.0]])
    told = region_figure.regions_told(rlsd.Regions(corners, logits), ("sun", "sea", "house", "tree"))
    assert told == [("sun 0.95\nhouse 0.73", 0, 0, 0.5, 0.5), ("sea 0.88", 0.5, 0, 1, 1)]
    [(caption, *_)] = region_figure.regions_told(rlsd.Regions(corners, logits - 9), ("a", "b", "c", "d"))
    assert caption == "a 0.00"
    corners[1] = torch.tensor([0, 0, 0.5, 0.4])
    told = region_figure.regions_told(rlsd.Regions(corners, logits), ("sun", "sea", "house", "tree"))
    assert told == [("sun 0.95\nsea 0.88\nhouse 0.73", 0, 0, 0.5, 0.5)]


SMALL = {
    "cnn_rnn": {"hidden": 16},
    "rlsd": {"channels": 8, "code": 16, "hidden": 16, "regions": 4},
    "rlsd_without_boxes": {"channels": 8, "code": 16, "hidden": 16, "regions": 4},
    "csra": {"heads": 2},
    "ml_decoder": {"width": 16},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, scenes_data):
    """Runs with stage 1 on a tiny `scenes`."""
    root = tmp_path_factory.mktemp("networks")
    where = {"dataset": "scenes", "data": shutil.copytree(scenes_data, root / "data"), "device": "cpu"}
    stages.train(1, runs=root / "runs", epochs=1, train_backbone=False, feature_cache=2, **where)
    return where | {"runs": root / "runs", "feature_cache": 2}


@pytest.mark.parametrize("name", SMALL)
def test_a_network_leaves_a_run_and_goes_on_where_it_was_interrupted(place, tmp_path, monkeypatch, name):
    own = SMALL[name] | {"epochs": 2, "batch_size": 8}
    run = train(name, own=own, **place)
    scores = run.scores()["scores"]
    assert scores.std(0).min() > 0 and run.history["epoch"].tolist() == [1, 2]
    runs = tmp_path / "runs"
    shutil.copytree(place["runs"] / "scenes/densenet", runs / "scenes/densenet")
    save = Progress.save

    def stopped(progress, row, state):
        save(progress, row, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Progress, "save", stopped)
        train(name, own=own, **place | {"runs": runs})
    resumed = train(name, own=own, **place | {"runs": runs})
    assert np.array_equal(resumed.scores()["scores"], scores) and resumed.history.equals(run.history)


def test_boxes_change_what_rlsd_learns(place):
    losses = [run_of(place, name).history["loss"].iloc[0] for name in ("rlsd", "rlsd_without_boxes")]
    assert losses[0] > losses[1] + 0.3  # the localisation's own


def run_of(place, name):
    return train(name, own=SMALL[name] | {"epochs": 2, "batch_size": 8}, **place)


def test_regions_are_drawn_over_images(place):
    run_of(place, "rlsd")
    figure = region_figure.regions_over_images(images=3, **place)
    [*shown] = [ax for ax in figure.axes if ax.images]
    assert len(shown) == 3 and all(ax.patches and ax.get_xlabel().startswith("scene") for ax in shown)
    with pytest.raises(
        StudyError, match=r"seed0/stage1 is not complete; run: python -m attnsem\.analysis\.systems rlsd_w"
    ):
        region_figure.regions_over_images("rlsd_without_boxes", **place | {"runs": without(place)})


def without(place):
    runs = place["runs"].parent / "without"
    shutil.copytree(place["runs"] / "scenes/densenet", runs / "scenes/densenet")
    return runs


def test_draws_of_a_network_are_settings_that_it_has():
    for name in SMALL:
        draws = [module_of(name).space(np.random.default_rng(number)) for number in range(20)]
        assert all(settings_of(name, draw) for draw in draws) and len({draw["lr"] for draw in draws}) == 20
