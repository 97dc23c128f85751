"""The study as a public training script would write it: JPEGs in a DataLoader, contiguous float32, no cache."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from attnsem.losses import multilabel_loss


class Photographs(Dataset):
    def __init__(self, paths: list[Path], targets: np.ndarray, *, train_size: int, image_size: int):
        self.paths, self.targets = paths, torch.from_numpy(targets)
        self.transform = transforms.Compose(
            [
                transforms.Resize((train_size, train_size)),
                transforms.RandomCrop(image_size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(Image.open(self.paths[index]).convert("RGB")), self.targets[index]


def loader(photographs: Photographs, batch: int) -> DataLoader:
    return DataLoader(photographs, batch, shuffle=True)


def train(network: nn.Module, optimizer: torch.optim.Optimizer, batches: DataLoader, scored: str) -> None:
    """One epoch."""
    device = next(network.parameters()).device
    for images, targets in batches:
        images, targets = images.to(device), targets.to(device)
        loss = multilabel_loss(getattr(network(images), scored), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def evaluate(network: nn.Module, batches: DataLoader, scored: str) -> np.ndarray:
    network.eval()
    device = next(network.parameters()).device
    return np.concatenate([getattr(network(images.to(device)), scored).cpu().numpy() for images, _ in batches])


def nine_readings(targets: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """AP label by label: scikit-learn's, and the two interpolations on its precision-recall points."""
    rows = []
    for difficult in ("ignore", "negative", "positive"):
        for label, score in zip(targets.T, scores.T, strict=True):
            kept = label != -1 if difficult == "ignore" else np.full(len(label), True)
            truth = np.where(label == -1, difficult == "positive", label)[kept]
            rows.append([average_precision_score(truth, score[kept]), *interpolated(truth, score[kept])])
    return pd.DataFrame(rows)


def interpolated(truth: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    hits = truth[np.argsort(-score)]
    true_positives = np.cumsum(hits)
    precision = true_positives / np.arange(1, len(hits) + 1)
    eleven = np.mean([precision[10 * true_positives >= tenth * true_positives[-1]].max() for tenth in range(11)])
    every = np.sum([precision[place:].max() for place in np.flatnonzero(hits)]) / hits.sum()
    return float(eleven), float(every)


def bootstrap(targets: np.ndarray, scores: np.ndarray, resamples: int) -> np.ndarray:
    random, rows = np.random.default_rng(0), []
    for _ in range(resamples):
        draw = random.integers(0, len(targets), len(targets))
        pairs = zip(targets[draw].T, scores[draw].T, strict=True)
        rows.append([average_precision_score(label[label != -1], score[label != -1]) for label, score in pairs])
    return np.array(rows)
