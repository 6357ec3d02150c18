"""Captions become word numbers and come back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvae_lite.data.captions import Vocabulary, tokens
from mmvae_lite.data.parts import Part
from mmvae_lite.distributions import CategoricalLikelihood
from mmvae_lite.models.vae import VAE
from mmvae_lite.networks import dense_decoder, dense_encoder, mmvae_cub_networks
from mmvae_lite.training import fit

TEXTS = ["the bird has a red crown , and its belly is white."] * 4 + ["A blue-grey bird isn't here"] * 5 + ["one odd word : zebra"]


def test_words_and_marks():
    assert tokens("A blue-grey bird, isn't  it?") == ["a", "blue-grey", "bird", ",", "isn't", "it", "?"]
    assert tokens(" \n") == []


def test_the_first_words_are_special_and_the_others_in_order_of_use():
    v = Vocabulary.of(TEXTS)
    assert v.words[:7] == ("<exc>", "<pad>", "<eos>", "the", "bird", "has", "a")
    assert "zebra" not in v.words and "blue-grey" in v.words


def test_a_word_must_occur_more_often_than_min_count():
    texts = ["a"] * 4 + ["b"] * 3
    assert Vocabulary.of(texts).words == ("<exc>", "<pad>", "<eos>", "a")
    assert Vocabulary.of(texts, min_count=2).words[3:] == ("a", "b")


def test_the_words_of_training_do_not_know_the_special_ones():
    assert Vocabulary.of(["< exc > bird"] * 4).words[3:] == ("<", "exc", ">", "bird")
    v = Vocabulary.of(TEXTS)
    assert v.encode(["<pad> bird"])[0, 0] == 0, "a text cannot write padding"


def test_rows_by_hand():
    v = Vocabulary(("<exc>", "<pad>", "<eos>", "red", "bird"), length=5)
    assert v.encode(["Red bird", "red zebra", "", "red red red red red red"]).tolist() == [
        [3, 4, 2, 1, 1],
        [3, 0, 2, 1, 1],
        [2, 1, 1, 1, 1],
        [3, 3, 3, 3, 2],
    ]


WORDS = st.sampled_from(Vocabulary.of(TEXTS).words[3:])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=31), min_size=1, max_size=5))
def test_encoding_and_decoding_are_inverse(sentences):
    v = Vocabulary.of(TEXTS)
    texts = [" ".join(words) for words in sentences]
    ids = v.encode(texts)
    assert ids.shape == (len(texts), 32) and v.decode(ids) == texts
    assert torch.equal(torch.stack([v.encode_exactly(text) for text in texts]), ids)
    assert v.read(v.one_hot(ids) * 7.0) == texts


def test_what_a_decoder_may_give():
    v = Vocabulary(("<exc>", "<pad>", "<eos>", "red", "bird"), length=4)
    assert v.decode(torch.tensor([[3, 1, 4, 3], [2, 3, 3, 3], [0, 4, 2, 1]])) == ["red bird red", "", "<exc> bird"]


def test_the_networks_of_the_paper_read_it():
    v = Vocabulary.of(TEXTS)
    nets = mmvae_cub_networks(latent_dim=4, vocabulary=len(v))
    x = v.one_hot(v.encode(TEXTS[:2]))
    assert nets["encoders"]["caption"](x).mean.shape == (2, 4)
    assert nets["decoders"]["caption"](torch.zeros(2, 4)).shape == x.shape


def test_rare_words_count_nothing_and_padding_does():
    v = Vocabulary(("<exc>", "<pad>", "<eos>", "red", "bird"), length=4)
    x = v.one_hot(v.encode(["red zebra"]))  # red, rare, end, padding
    logits = torch.randn(3, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    p = logits.log_softmax(-1)
    wanted = p[..., 0, 3] + p[..., 2, 2] + p[..., 3, 1]
    assert torch.allclose(CategoricalLikelihood(ignore=0).log_prob(logits, x), wanted)
    assert torch.allclose(CategoricalLikelihood().log_prob(logits, x), wanted + p[..., 1, 0])


def test_a_model_learns_from_word_numbers():
    v = Vocabulary.of(TEXTS, length=8)
    part = Part({"caption": v.encode(TEXTS * 4)}, words={"caption": len(v)})
    size = 8 * len(v)
    likelihood = CategoricalLikelihood(ignore=0)
    torch.manual_seed(0)
    model = VAE(dense_encoder([size, 16], 2), dense_decoder([2, 16, size], (8, len(v))), likelihood, 2, modality="caption")
    history = fit(model, part, epochs=15, batch_size=10, lr=1e-2, progress=False, device="cpu")
    assert history["loss"][-1] < 0.6 * history["loss"][0]


@pytest.mark.parametrize(
    "text, message",
    [
        ("the zebra has a gnu crown , zebra", "2 of 7 words are not among the [0-9]+ that the captions use: 'zebra', 'gnu'"),
        ("  ", "the caption is empty"),
        ("bird " * 32, "has 32 words, wanted at most 31"),
        ("bird <pad>", "3 of 4 words are not among .*'<', 'pad', '>'"),
        ("q w e r t y", "6 of 6 words .*, ...; write"),
    ],
)
def test_what_a_reader_types_is_checked(text, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.of(TEXTS).encode_exactly(text)


def test_refusals(as_a_reader):
    with pytest.raises(ValueError, match="no word occurs more than 3 times"):
        Vocabulary.of(["a few words"])
    with pytest.raises(ValueError, match="starts with <exc>, <pad>, <eos>: found bird"):
        Vocabulary(("bird",))
    with pytest.raises(ValueError, match="'red' more often"):
        Vocabulary(("<exc>", "<pad>", "<eos>", "red", "red"))
    with pytest.raises(ValueError, match="found 0 to 9, wanted 0 to 4"):
        Vocabulary(("<exc>", "<pad>", "<eos>", "red", "bird")).decode(torch.tensor([[0, 9]]))
    with pytest.raises(TypeError, match="a caption is a string, found bytes"):
        tokens(b"bird")
    with pytest.raises(ValueError, match="length"):
        Vocabulary(("<exc>", "<pad>", "<eos>"), 0)
