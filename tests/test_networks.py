"""The papers' networks: parameters counted by hand, shapes in and out, and what a start looks like."""

import pytest
import torch
from torch import nn

from mmvae_lite.distributions import Concrete, Laplace, Normal
from mmvae_lite.networks import (
    dmvae_d_networks,
    dmvae_d_paired_networks,
    dmvae_l_celeba_networks,
    dmvae_l_fashion_networks,
    dmvae_l_networks,
    image_decoder,
    image_encoder,
    kaiming_init,
    label_decoder,
    label_encoder,
    mlp,
    mmvae_cub_networks,
    mmvae_networks,
    normal_init,
)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def dense(*sizes):
    """Weights and biases of linear layers."""
    return sum(a * b + b for a, b in zip(sizes, sizes[1:]))


def conv(fan_in, fan_out, area, bias=True):
    """Weights and biases of a convolution, or of a transposed one, with kernels of `area` cells."""
    return fan_in * fan_out * area + (fan_out if bias else 0)


def norm(*channels):
    """A scale and a shift for every channel."""
    return 2 * sum(channels)


SVHN_DOWN = conv(3, 32, 16) + conv(32, 64, 16) + conv(64, 128, 16)
SVHN_UP = conv(20, 128, 16) + conv(128, 64, 16) + conv(64, 32, 16) + conv(32, 3, 16)
FASHION_DENSE = {"encoder": dense(3136, 512) + dense(512, 30), "decoder": dense(20, 512, 3136)}
CELEBA_DENSE = {"encoder": dense(6400, 512) + dense(512, 200) + dense(512, 36), "decoder": dense(136, 6400)}
CUB_DOWN = (
    sum(conv(a, b, 16, bias=False) for a, b in ((1, 32), (32, 64), (64, 128)))
    + 2 * conv(128, 128, 4, bias=False)
    + norm(32, 64, 128, 128, 128)
)
CUB_UP = (
    conv(64, 128, 16, bias=False)
    + 2 * conv(128, 128, 4, bias=False)
    + sum(conv(a, b, 16, bias=False) for a, b in ((128, 64), (64, 32), (32, 1)))
    + norm(128, 128, 128, 64, 32)
)
WORDS = 1590 * 128

# network, modality -> parameters of the encoder and of the decoder
COUNTS = {
    "dmvae_d": (dmvae_d_networks(), {
        "mnist": (dense(784, 400) + 4 * dense(400, 10), dense(20, 400, 784)),
        "svhn": (SVHN_DOWN + 4 * conv(128, 10, 16), SVHN_UP),
    }),
    "dmvae_d_paired": (dmvae_d_paired_networks(["a", "b"]), {
        m: (dense(784, 512, 512) + 4 * dense(512, 10), dense(20, 512, 512, 512, 784)) for m in ("a", "b")
    }),
    "mmvae": (mmvae_networks(), {
        "mnist": (dense(784, 400) + 2 * dense(400, 20), dense(20, 400, 784)),
        "svhn": (SVHN_DOWN + 2 * conv(128, 20, 16), SVHN_UP),
    }),
    "mmvae_cub": (mmvae_cub_networks(), {
        "image": (dense(2048, 1024, 512, 256) + 2 * dense(256, 64), dense(64, 256, 512, 1024, 2048)),
        # the embedding is counted on both sides, since both hold it
        "caption": (WORDS + CUB_DOWN + 2 * conv(128, 64, 16), CUB_UP + WORDS + 1590),
    }),
    "dmvae_l": (dmvae_l_networks(), {
        "image": (dense(784, 256) + dense(256, 2 * 10 + 10), dense(20, 256, 784)),
        "label": (dense(10, 256, 10), dense(10, 256, 10)),
    }),
    "dmvae_l continuous": (dmvae_l_networks(private_dim=4, shared=6), {
        "image": (dense(784, 256) + dense(256, 2 * 4 + 2 * 6), dense(10, 256, 784)),
        "label": (dense(10, 256, 12), dense(6, 256, 10)),
    }),
    "dmvae_l_fashion": (dmvae_l_fashion_networks(), {
        "image": (
            conv(1, 32, 9) + conv(32, 32, 9) + conv(32, 64, 9) + conv(64, 64, 9) + FASHION_DENSE["encoder"],
            FASHION_DENSE["decoder"] + conv(64, 64, 9) + conv(64, 32, 9) + conv(32, 32, 9) + conv(32, 1, 9),
        ),
        "label": (dense(10, 256, 10), dense(10, 256, 10)),
    }),
    "dmvae_l_fashion as in the code": (dmvae_l_fashion_networks(batch_norm=True), {
        "image": (
            9 * (32 + 32 * 32 + 32 * 64 + 64 * 64) + norm(32, 32, 64, 64) + FASHION_DENSE["encoder"],
            FASHION_DENSE["decoder"] + 9 * (64 * 64 + 64 * 32 + 32 * 32 + 32) + norm(64, 32, 32),
        ),
        "label": (dense(10, 256, 10), dense(10, 256, 10)),
    }),
    "dmvae_l_celeba": (dmvae_l_celeba_networks(), {
        "image": (
            conv(3, 32, 16) + conv(32, 64, 16) + conv(64, 128, 16) + conv(128, 256, 16) + CELEBA_DENSE["encoder"],
            CELEBA_DENSE["decoder"] + conv(256, 128, 16) + conv(128, 64, 16) + conv(64, 32, 16) + conv(32, 3, 16),
        ),
        "attributes": (dense(18, 256, 36), dense(36, 256, 18)),
    }),
    "dmvae_l_celeba as in the code": (dmvae_l_celeba_networks(batch_norm=True), {
        "image": (
            16 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256) + norm(64, 128, 256) + CELEBA_DENSE["encoder"],
            CELEBA_DENSE["decoder"] + 16 * (256 * 128 + 128 * 64 + 64 * 32 + 32 * 3) + norm(128, 64, 32),
        ),
        "attributes": (dense(18, 256, 36), dense(36, 256, 18)),
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_counted_by_hand(name):
    networks, counts = COUNTS[name]
    assert set(networks["encoders"]) == set(networks["decoders"]) == set(counts)
    found = {m: (parameters(networks["encoders"][m]), parameters(networks["decoders"][m])) for m in counts}
    assert found == counts


def test_some_counts_in_figures():
    """The sums above, worked out once on paper."""
    assert dense(784, 400) + 4 * dense(400, 10) == 330_040
    assert SVHN_UP == 206_563 and SVHN_DOWN == 165_600
    assert COUNTS["dmvae_l"][1]["image"] == (208_670, 206_864)
    assert COUNTS["dmvae_l_fashion"][1]["image"] == (1_686_526, 1_684_449)
    assert COUNTS["dmvae_l_celeba"][1]["image"] == (4_088_524, 1_566_691)


def test_mvae_networks():
    assert parameters(image_encoder(64)) == dense(784, 512, 512, 128)
    assert parameters(image_decoder(64)) == dense(64, 512, 512, 512, 784)
    assert parameters(label_encoder(64)) == 10 * 512 + dense(512, 512, 128)
    assert parameters(label_decoder(64)) == dense(64, 512, 512, 512, 10)


EVENTS = {"dmvae_d": {"mnist": (1, 28, 28), "svhn": (3, 32, 32)}, "mmvae": {"mnist": (1, 28, 28), "svhn": (3, 32, 32)}}
EVENTS["dmvae_d_paired"] = {"a": (1, 28, 28), "b": (1, 28, 28)}
EVENTS["mmvae_cub"] = {"image": (2048,), "caption": (32, 1590)}
DMVAE_L = {name: {"image": (1, 28, 28), "label": (10,)} for name in COUNTS if name.startswith("dmvae_l")}
EVENTS |= DMVAE_L | {name: {"image": (3, 64, 64), "attributes": (18,)} for name in DMVAE_L if "celeba" in name}


@pytest.mark.parametrize(("name", "modality"), [(name, m) for name, events in EVENTS.items() for m in events])
def test_what_goes_in_comes_out(name, modality):
    """An item is encoded and decoded to its own shape, with a latent of each kind where it has one."""
    networks, event = COUNTS[name][0], EVENTS[name][modality]
    encoder, decoder = networks["encoders"][modality].eval(), networks["decoders"][modality].eval()
    x = torch.rand(2, *event)
    if modality == "caption":
        x = nn.functional.one_hot(torch.randint(event[-1], (2, event[0])), event[-1]).float()
    with torch.no_grad():
        q = encoder(x)
        parts = list(q.values()) if isinstance(q, dict) else [q]
        z = torch.cat([part.rsample().flatten(1) for part in parts], -1)
        assert decoder(z).shape == x.shape
        assert decoder(z[:1]).shape == x[:1].shape
    assert isinstance(decoder, nn.Sequential)


def test_kinds_of_posteriors():
    x = torch.rand(3, 1, 28, 28)
    q = dmvae_l_networks()["encoders"]["image"](x)
    assert isinstance(q["private"], Normal) and q["private"].mean.shape == (3, 10)
    assert isinstance(q["shared"], Concrete) and q["shared"].logits.shape == (3, 1, 10)
    assert q["shared"].temperature == 0.66
    assert set(dmvae_l_networks()["encoders"]["label"](torch.eye(10))) == {"shared"}
    assert isinstance(dmvae_l_networks(shared=5)["encoders"]["image"](x)["shared"], Normal)
    assert dmvae_l_celeba_networks()["encoders"]["attributes"](torch.rand(3, 18))["shared"].logits.shape == (3, 18, 2)
    laplace = mmvae_networks()["encoders"]["mnist"](x)
    assert isinstance(laplace, Laplace)
    assert laplace.scale.sum(-1).tolist() == pytest.approx([20] * 3, rel=1e-4)


def test_ranges_of_decoders():
    z = 5 * torch.randn(8, 20)
    for networks, bounded in ((dmvae_d_networks(), {"mnist": True, "svhn": False}), (mmvae_networks(), {"mnist": True, "svhn": True})):
        for name, decoder in networks["decoders"].items():
            x = decoder(20 * z)
            assert bool(((x >= 0) & (x <= 1)).all()) is bounded[name]


@pytest.mark.parametrize("networks", [dmvae_l_fashion_networks, dmvae_l_celeba_networks])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_batch_of_one_trains(networks, batch_norm):
    nets = networks(batch_norm=batch_norm)
    q = nets["encoders"]["image"](torch.rand(1, 1, 28, 28) if networks is dmvae_l_fashion_networks else torch.rand(1, 3, 64, 64))
    z = torch.cat([q["private"].rsample(), q["shared"].rsample().flatten(1)], -1)
    nets["decoders"]["image"](z).sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in nets["decoders"]["image"].parameters())


def test_captions_share_one_embedding():
    networks = mmvae_cub_networks()
    assert networks["encoders"]["caption"].trunk[0].weight is networks["decoders"]["caption"][-1].weight
    with pytest.raises(ValueError, match="positions: found 30, wanted a multiple of 8"):
        mmvae_cub_networks(positions=30)


def test_starts():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(400, 300), nn.Conv2d(40, 50, 3), nn.ConvTranspose2d(4, 5, 3), nn.BatchNorm2d(5))
    before = net[2].weight.detach().clone()
    net.apply(kaiming_init)
    for layer, fan_in in ((net[0], 400), (net[1], 40 * 9)):
        bound = (6 / fan_in) ** 0.5
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
        assert layer.bias.abs().max().item() == 0
    net.apply(normal_init)
    assert net[0].weight.std().item() == pytest.approx(0.05, rel=0.02)
    assert torch.equal(net[2].weight, before)
    nn.Sequential(nn.Conv2d(1, 1, 1, bias=False)).apply(kaiming_init)


def test_an_mlp_needs_two_sizes():
    with pytest.raises(ValueError, match="an MLP needs at least 2 sizes, got"):
        mlp([3])
