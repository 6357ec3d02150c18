"""One small explorer of every kind, with random networks, and the networks of the library that a page must run."""

from __future__ import annotations

import torch
from torch import nn

from mmvae_lite import explore, networks
from mmvae_lite.data.captions import Vocabulary

WORDS = "a small red bird with a short beak and white wings on a branch ."
ATTRIBUTES = ("bald", "bangs", "hat", "smile")


def louder(net: nn.Module, factor: float = 3.0) -> nn.Module:
    """Random weights that let a picture change visibly."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.Linear, nn.ConvTranspose2d)):
                module.weight.mul_(factor)
    return net.eval()


def picture(latent: int, channels: int = 1, side: int = 8) -> nn.Sequential:
    """A small convolutional decoder."""
    up = nn.ConvTranspose2d(8, channels, 4, 2, 1)
    return louder(nn.Sequential(nn.Linear(latent, 8 * (side // 2) ** 2), nn.ReLU(), nn.Unflatten(1, (8, side // 2, side // 2)), up, nn.Sigmoid()))


def explorers() -> dict[str, object]:
    """Tag, or tag and a word more -> explorer."""
    torch.manual_seed(0)
    labels = torch.arange(12) % 4
    speech = louder(networks.speech_decoder(5, frames=20, units=12), 2)
    vocabulary = Vocabulary.of([WORDS] * 5, length=16)
    birds = networks.mmvae_cub_networks(6, len(vocabulary), 16)
    classes = torch.eye(4)
    two = {"digit": picture(6), "garment": picture(6)}
    k = [1, 2, 4, 8, 16]
    return {
        "latent-explorer": explore.LatentExplorer(
            {"image": picture(4, 3), "speech": louder(networks.speech_decoder(4, frames=20, units=12), 2)}, torch.zeros(6),
            reads={"image": [0, 1, 2, 3], "speech": [4, 5, 2, 3]}, kl=[3.0, 1.0, 2.0, 0.5, 1.5, 0.7], faces=["p0", "p1", "s0", "s1", "v0", "v1"],
            starts={"a": torch.ones(6)},
        ),
        "style-mixer": explore.StyleMixer(
            {"speech": speech, "image": picture(5)}, {"speech": torch.randn(12, 3), "image": torch.randn(12, 3)},
            {"speech": torch.randn(12, 2), "image": torch.randn(12, 2)}, labels, name="mixer",
        ),
        "label-dial": explore.LabelDial(
            {"image": picture(6), "label": nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1))}, classes, torch.randn(2), styles=torch.randn(3, 2)
        ),
        "attribute-dial": explore.AttributeDial({"image": picture(10, 3)}, ATTRIBUTES, torch.randn(2), styles=torch.randn(3, 2), on=[True, False, False, True]),
        "entangled-slider": explore.EntangledSlider(two, classes={"digit": "0123", "garment": ["shirt", "dress", "coat", "bag"]}),
        "caption-editor": explore.CaptionEditor(
            explore.page_encoder(birds["encoders"]["caption"].eval()), {"image": picture(6, 3), "caption": birds["decoders"]["caption"].eval()},
            vocabulary, "a small red bird", examples=["a red beak"],
        ),
        "concrete-simplex": explore.ConcreteSimplex(),
        "subset-lattice": explore.SubsetLattice(3, values={(0, 1, 2): -3.5, (0,): -4.0}),
        "bound-explorer": explore.BoundExplorer(
            k, {"loose": [[-4 + b * n for n in range(5)] for b in (0.1, 0.2)], "tight": [[-3.5 + b * n for n in range(5)] for b in (0.05, 0.1)]},
            truth=-3.0, settings=(1, 2), setting="beta", log=True,
        ),
        "infonce-matrix": explore.InfonceMatrix(),
        "expert-playground": explore.ExpertPlayground([1.0, -1.0], [2.0, 4.0], form="mixture", truth=(0.2, 6.0)),
    }  # fmt: skip


def builders() -> dict[str, tuple[nn.Module, int]]:
    """Every decoder that `mmvae_lite.networks` builds, and how many numbers it reads; statistics of normalisation are not their start's."""
    torch.manual_seed(1)
    found = {
        "mvae image": networks.image_decoder(8, hidden=(64, 64)),
        "mvae label": networks.label_decoder(8, hidden=(64, 64)),
        "jmvae image": networks.jmvae_networks(8, hidden=64)["decoders"]["image"],
        "m2vae garment": networks.m2vae_networks({"garment": (1, 28, 28)})["decoders"]["garment"],
        "dmvae_d mnist": networks.dmvae_d_networks()["decoders"]["mnist"],
        "dmvae_d svhn": networks.dmvae_d_networks()["decoders"]["svhn"],
        "dmvae_d paired": networks.dmvae_d_paired_networks(["x1"], hidden=64)["decoders"]["x1"],
        "mmvae svhn": networks.mmvae_networks()["decoders"]["svhn"],
        "mmvae mnist": networks.mmvae_networks()["decoders"]["mnist"],
        "birds caption": networks.mmvae_cub_networks(16, 60)["decoders"]["caption"],
        "dmvae_l image": networks.dmvae_l_networks()["decoders"]["image"],
        "dmvae_l label": networks.dmvae_l_networks()["decoders"]["label"],
        "fashion image": networks.dmvae_l_fashion_networks()["decoders"]["image"],
        "fashion image, normalised": networks.dmvae_l_fashion_networks(batch_norm=True)["decoders"]["image"],
        "faces image": networks.dmvae_l_celeba_networks(private_dim=10)["decoders"]["image"],
        "faces image, normalised": networks.dmvae_l_celeba_networks(batch_norm=True)["decoders"]["image"],
        "faces attributes": networks.dmvae_l_celeba_networks()["decoders"]["attributes"],
        "cvae": networks.cvae_decoder(),
        "pvae speech": networks.pvae_networks(units=128)["decoders"]["speech"],
        "pvae image": networks.pvae_networks(units=128)["decoders"]["image"],
        "every activation": nn.Sequential(
            nn.Linear(4, 36), nn.LeakyReLU(0.2), nn.Unflatten(1, (1, 6, 6)), nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ELU(0.5), nn.Dropout(),
            nn.MaxPool2d(2, 1), nn.Flatten(), nn.Tanh(), nn.Linear(12, 7), nn.SiLU(), nn.Identity(), nn.Hardtanh(-0.1, 0.3),
        ),
    }  # fmt: skip
    for net in found.values():
        net.eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                nn.init.normal_(module.weight)
    inputs = {name: explore.export_decoders({name: net}).spec["inputs"][name] for name, net in found.items()}
    return {name: (net, inputs[name]) for name, net in found.items()}
