"""ImageNet weights of torchvision and timm: which they are, and where their files are looked for."""

import re

from attnsem import StudyError


def of_imagenet(name: str) -> str:
    """A name of timm's with the tag of weights from ImageNet, of 1,000 classes where there are any; its own tag stays.

    StudyError where all are of something else, such as CLIP.
    """
    import timm

    tags = [tagged.partition(".")[2] for tagged in timm.list_pretrained(f"{name}.*")]
    if "." in name or not tags:
        return name
    tags.sort(key=(default := timm.get_pretrained_cfg(name).tag).__ne__)
    for pattern in ("in1k", r"in\w*\dk"):
        if of_pattern := [tag for tag in tags if re.search(pattern, tag)]:
            return f"{name}.{of_pattern[0]}"
    remedy = f"give -p backbone {name}.{default} to take them as they are, or -p weights none or a file"
    raise StudyError(f"timm's weights of {name} are {default}, not from ImageNet; {remedy}")


def way_to_weights(name: str) -> str:
    """What to put where, so that torchvision or timm find their ImageNet weights without a network."""
    import torch
    from torchvision import models

    if name in models.list_models(models):
        url = models.get_model_weights(name).DEFAULT.url
    else:
        import timm

        cfg = timm.get_pretrained_cfg(of_imagenet(name))
        if not (cfg and (cfg.hf_hub_id or cfg.url)):
            return "choose a backbone that has some"
        if cfg.hf_hub_id:
            from huggingface_hub.constants import HF_HUB_CACHE

            folder = f"models--{cfg.hf_hub_id.replace('/', '--')}"
            return f"go online, or copy the folder {folder} of another machine's cache to {HF_HUB_CACHE}"
        url = cfg.url
    return f"go online, or put the file of {url} in {torch.hub.get_dir()}/checkpoints"
