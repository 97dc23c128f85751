"""The benchmarks compare like with like, count what they say, and their report is that of their files."""

import numpy as np
import pytest
import torch

from attnsem import metrics, stages
from attnsem.analysis.statistics import bootstrap
from attnsem.files import ROOT
from attnsem.paper import settings
from benchmarks import plain, readings, report
from benchmarks.measure import Limits, compare

RANDOM = np.random.default_rng(3)
TARGETS = RANDOM.choice([0, 1, -1], p=[0.7, 0.2, 0.1], size=(80, 4)).astype(np.int8)
SCORES = RANDOM.normal(size=TARGETS.shape)


def test_the_plain_nine_readings_are_ours():
    ours = metrics.readings(TARGETS, SCORES, list("abcd"))
    for row, difficult in enumerate(metrics.DIFFICULT):
        found = 100 * plain.nine_readings(TARGETS, SCORES).iloc[4 * row : 4 * row + 4]
        for column, interpolation in enumerate(metrics.INTERPOLATIONS):
            assert found[column].to_numpy() == pytest.approx(
                ours.loc[(interpolation, difficult), list("abcd")].to_numpy()
            )


def test_the_plain_bootstrap_is_ours():
    assert plain.bootstrap(TARGETS, SCORES, 5) == pytest.approx(bootstrap(TARGETS, SCORES, resamples=5))


def test_operations_and_bytes_of_a_product():
    a, b = torch.rand(8, 16), torch.rand(16, 32)
    by_operations, by_bytes = Limits({"32-true": 1.0}, 1e30), Limits({"32-true": 1e30}, 1.0)
    assert by_operations.least(lambda: a @ b, "32-true") == 2 * 8 * 16 * 32
    assert by_bytes.least(lambda: a @ b, "32-true") == 4 * (8 * 16 + 16 * 32 + 8 * 32)


def test_a_ratio_is_of_times_for_the_same_number_of_units():
    calls = []
    row = compare(
        "w",
        lambda: calls.append("plain"),
        lambda: calls.append("ours"),
        of=4,
        plain_of=2,
        unit="u",
        rounds=3,
        device=torch.device("cpu"),
    )
    assert calls == ["plain", "plain", "ours", "ours"] * 3
    assert row.lowest <= row.ratio <= row.highest and row.share_of_limit is None


def test_the_report_is_that_of_the_files():
    assert (ROOT / "benchmarks/README.md").read_text() == report.report()


@pytest.mark.parametrize("reading", [one for one in readings.READINGS if one.patched], ids=lambda one: one.name)
def test_another_reading_changes_the_network_that_is_built_and_nothing_after_it(reading):
    def parts():
        network = stages.network_of(settings(3, dataset="scenes", gate="confidence"), labels=5)
        output = network(torch.rand(2, 3, 64, 64))
        assert output.fused.shape == (2, 5) and 0 < network.fusion.alpha.item() < 1
        network.fusion.keep(0)
        return [f"{name} {type(part).__name__} {part}" for name, part in network.named_modules()]

    usual = parts()
    with readings.read_so(reading):
        other = parts()
    assert usual != other and parts() == usual


def test_s_from_stage_1s_classifier():
    first = stages.network_of(settings(1, dataset="scenes"), labels=5)
    reading = next(one for one in readings.READINGS if one.stage2)
    with readings.read_so(reading):
        second = stages.network_of(settings(2, dataset="scenes"), labels=5, state=first.state_dict())
    x = torch.rand(1, first.backbone.channels, 4, 4)
    assert torch.allclose(second.attention(x)[2].mean((2, 3)), first.classifier(x), atol=1e-5)
