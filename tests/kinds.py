"""Small synthetic tensors of each kind of modality, with networks that fit them."""

import torch
from torch import nn

from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood, NormalLikelihood
from mmvae_lite.networks import dense_decoder, dense_encoder, dense_joint_encoder

KINDS = {
    "image": ((1, 4, 4), BernoulliLikelihood()),
    "label": ((3,), CategoricalLikelihood()),
    "speech": ((5, 4), NormalLikelihood(1.0)),
    "caption": ((4, 6), CategoricalLikelihood()),
    "attributes": ((5,), BernoulliLikelihood()),
}
LATENT = 3


def items(names, n=12, dtype=torch.float64):
    """n items of three classes; every modality follows from the class, up to a little noise."""
    g = torch.Generator().manual_seed(4)
    classes = torch.randint(3, (n,), generator=g)
    batch = {}
    for name in KINDS:
        shape, _ = KINDS[name]
        prototypes = torch.rand(3, *shape, generator=g, dtype=dtype)
        if name == "label":
            batch[name] = nn.functional.one_hot(classes, 3).to(dtype)
        elif name == "caption":
            batch[name] = nn.functional.one_hot(prototypes.argmax(-1), shape[-1]).to(dtype)[classes]
        else:
            noise = 0.1 * torch.rand(n, *shape, generator=g, dtype=dtype)
            batch[name] = (0.9 * prototypes.round()[classes] + noise) * (4 if name == "speech" else 1)
    return {name: batch[name] for name in names}


def size(name):
    return torch.Size(KINDS[name][0]).numel()


def encoder(members, latent=LATENT, hidden=8):
    """A small encoder of one modality, or of several at once."""
    if len(members) == 1:
        return dense_encoder([size(members[0]), hidden], latent)
    return dense_joint_encoder({m: [size(m), hidden] for m in members}, hidden, latent)


def parts(names, latent=LATENT):
    return {
        "decoders": {m: dense_decoder([latent, 8, size(m)], KINDS[m][0]) for m in names},
        "likelihoods": {m: KINDS[m][1] for m in names},
        "latent_dim": latent,
    }


def log_px(model, name, z, x):
    """log p(x_m | z) of one item by torch.distributions: z [latent], x [*event]."""
    D, params = torch.distributions, model.decoders[name](z[None])[0]
    family = model.likelihoods[name]
    if isinstance(family, BernoulliLikelihood):
        return D.Bernoulli(logits=params, validate_args=False).log_prob(x).sum()
    if isinstance(family, CategoricalLikelihood):
        return D.OneHotCategorical(logits=params).log_prob(x).sum()
    return D.Normal(params, family.std).log_prob(x).sum()


def density(q, i):
    """Item i of a posterior as a torch distribution."""
    return torch.distributions.Normal(q.mean[i], (0.5 * q.logvar[i]).exp())


def divergence(q, p):
    return torch.distributions.kl_divergence(q, p).sum()


def noise(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradients(loss, parameters):
    return torch.autograd.grad(loss, list(parameters), allow_unused=True, retain_graph=True)


def assert_same_gradients(one, two, parameters):
    parameters = list(parameters)
    for a, b in zip(gradients(one, parameters), gradients(two, parameters)):
        assert (a is None) == (b is None) or (a if b is None else b).abs().max().item() == 0
        assert a is None or b is None or torch.allclose(a, b, rtol=1e-8, atol=1e-11)
