"""The small networks for faces: variable k is attribute k, and the weights that ship read and draw faces they have not seen."""

import pytest
import torch
from torch.nn import functional as F

from mmvae_lite.data.faces import drawn_faces
from mmvae_lite.distributions import BernoulliLikelihood
from mmvae_lite.evaluation.semi_supervised import binary_scores
from mmvae_lite.models import DMVAE_L
from mmvae_lite.networks import AttributeDecoder, AttributeEncoder, dmvae_l_small_face_networks
from mmvae_lite.pretrained import load_network


def build():
    families = {"image": BernoulliLikelihood(), "attributes": BernoulliLikelihood()}
    return DMVAE_L(
        **dmvae_l_small_face_networks(24), likelihoods=families, private_dims={"image": 24, "attributes": 0}, shared=(18, 2), n_data=3000
    )


@pytest.fixture(scope="module")
def faces():
    part = drawn_faces(60, seed=91)
    return F.avg_pool2d(part.batch["image"] / 255, 2), part.batch["attributes"]


def test_a_variable_knows_its_attribute_and_no_other():
    a = torch.tensor([[0.0, 1.0, 1.0]])
    q = AttributeEncoder(3)(a)["shared"]
    assert torch.equal(q.probs.argmax(-1), a.long()) and q.probs.shape == (1, 3, 2)
    assert torch.allclose(q.probs[0, 1], q.probs[0, 2]) and torch.allclose(q.probs[0, 0].flip(0), q.probs[0, 1])
    z = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.5, 0.5]], requires_grad=True)
    logits = AttributeDecoder(3)(z)
    assert logits[0, 0] < 0 < logits[0, 1] and logits[0, 2] == 0
    (slope,) = torch.autograd.grad(logits[0, 1], z)
    assert slope[0, [0, 1, 4, 5]].abs().max() == 0 and slope[0, 3] > 0 > slope[0, 2]


@torch.no_grad()
def test_the_shipped_weights_find_attributes_of_unseen_faces(faces):
    model, card = load_network("dmvae-l-small-faces", build)
    images, attributes = faces
    found = binary_scores(model.translate({"image": images}, "attributes") > 0.5, attributes > 0.5)
    assert found["accuracy"]["value"] > found["accuracy"]["base"] + 0.02
    assert card["metrics"]["accuracy of attributes"]["value"] > card["metrics"]["accuracy of attributes"]["base"]
    assert model.posterior({"attributes": attributes})["shared"].probs.argmax(-1).equal(attributes.long())


@torch.no_grad()
def test_the_shipped_decoder_draws_a_face_with_its_style(faces):
    """A decoded face is nearer to its own face than to those of others, and with another's style it is not."""
    model, _ = load_network("dmvae-l-small-faces", build)
    images, attributes = faces
    code, style = F.one_hot(attributes.long(), 2).float().flatten(1), model.posterior({"image": images})["private/image"].mean

    def nearest(private):
        drawn = model.decode({"shared": code, "private/image": private})["image"]
        return (torch.cdist(drawn.flatten(1), images.flatten(1)).argmin(1) == torch.arange(60)).float().mean()

    assert nearest(style) > 0.5 > 0.2 > nearest(style.roll(1, 0))
