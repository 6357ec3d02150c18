"""Drawn birds: captions that are true and partial, pictures that show what they say, species that stay in their partition."""

import hashlib
import os
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from mmvae_lite.data import drawn_birds as B
from mmvae_lite.data.bird_captions import BILLS, PARTS, SIZES, band_colour, wing_mark
from mmvae_lite.data.captions import Vocabulary, tokens

COLOURS = "|".join(B.COLOURS)


@pytest.fixture(scope="module")
def data():
    return B.drawn_birds(30, 10, 4)


def flock(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return B.sample(B.species(n, seed), g), torch.rand(n, B.JITTER, generator=g)


def test_ten_captions_a_bird_true_and_partial():
    attributes, _ = flock(100)
    for row, written in zip(attributes, B.captions_of(attributes)):
        bird = B.names_of(row)
        assert len(written) == 10
        assert len({c.text for c in written}) >= 9
        for caption in written:
            assert caption.claims, caption.text
            assert all(bird[name] == value for name, value in caption.claims.items()), caption
            assert len(caption.claims) <= 12 < len(bird), caption
            assert len(tokens(caption.text)) <= 31, caption.text


def test_the_words_say_what_the_record_claims():
    """Read back from the sentences, by another road than the one that wrote them."""
    attributes, _ = flock(120, 1)
    part_of = {name.split()[0]: part for part, names in PARTS.items() for name, _ in names}
    heard = Counter()
    for row, written in zip(attributes, B.captions_of(attributes)):
        bird = B.names_of(row)
        for caption in written:
            text = caption.text
            found = re.findall(rf"\b({COLOURS}) (\w+)(?: feathers| body)? and (\w+)\b(?! without)", text)
            said = [(c, n) for c, a, b in found for n in (a, b)] + re.findall(rf"\b({COLOURS}) (\w+)", text)
            said += [(c, n) for n, c in re.findall(rf"(\w+)(?: feathers| body)? (?:is|are) ({COLOURS})\b", text)]
            for colour, noun in said:
                if noun in part_of:
                    assert bird[part_of[noun]] == colour and part_of[noun] in caption.claims, text
                    heard[part_of[noun]] += 1
            for value, phrases in BILLS.items():
                if re.search(rf"\b({'|'.join(phrases)}) (?:(?:{COLOURS}) )?(bill|beak)", text):
                    assert bird["bill"] == value or any(p in text for p in BILLS[bird["bill"]]), text
            for value, phrases in SIZES.items():
                if re.search(rf"^(?:this|the|a|there is a|here is a|we see a) (?:{'|'.join(phrases)}) ", text):
                    assert bird["size"] == value, text
            mark = re.search(r"(\w+) (?:wingbars?|bars? on|spotted wings|spots on)", text)
            if mark:
                assert mark[1] == wing_mark(bird) and bird["wing pattern"] in ("bar", "bars", "spots"), text
            mark = re.search(r"(\w+) (?:band across|breast band)", text)
            if mark:
                assert mark[1] == band_colour(bird) and bird["belly pattern"] == "band", text
    assert set(heard) == set(PARTS) and min(heard.values()) > 30, heard


def test_no_caption_names_what_is_hidden():
    attributes, _ = flock(160, 2)
    afloat = 0
    for row, written in zip(attributes, B.captions_of(attributes)):
        bird = B.names_of(row)
        if bird["shape"] == "duck" and bird["scene"] == "water":
            afloat += 1
            assert bird["pose"] == "level"
            assert not any({"legs", "pose"} & c.claims.keys() or re.search("legs|feet|tarsi", c.text) for c in written)
        for name, value, on, colour in B.HIDDEN:
            assert (bird[name], bird[on]) != (value, colour)
    assert afloat > 3


def test_every_attribute_is_named_now_and_then():
    attributes, _ = flock(100, 3)
    named = Counter(name for written in B.captions_of(attributes) for c in written for name in c.claims)
    assert set(named) == set(B.ATTRIBUTES)


def test_articles():
    attributes, _ = flock(100, 4)
    texts = [c.text for written in B.captions_of(attributes) for c in written]
    assert not [t for t in texts if re.search(r"\ba [aeiou]", t) or re.search(r"\ban [^aeiou]", t)]
    assert not [t for t in texts if "  " in t or re.search(r"\b(\w+) \1\b", t) or "None" in t]


def test_a_rich_vocabulary(data):
    assert len(data.words) - 3 >= 100
    texts = Vocabulary(data.words).decode(data.train.batch["caption"])
    assert sum("<exc>" in t for t in texts) < len(texts) / 20
    assert len({re.sub(COLOURS, "colour", t) for t in texts}) > len(texts) / 2, "varied syntax"


def test_no_species_in_two_partitions(data):
    assert not set(data.train.classes.tolist()) & set(data.test.classes.tolist())
    assert data.train.classes.unique().tolist() == list(range(30)) and data.test.classes.unique().tolist() == list(range(30, 40))
    likeliest = B.species(200).argmax(-1)[:, : B.COLUMN["pose"]]
    assert len(likeliest.unique(dim=0)) == 200
    assert len(set(data.class_names)) == 40


def test_the_words_are_those_of_training_alone():
    small = B.drawn_birds(3, 3, 2)
    texts = {}
    for name, part in (("train", small.train), ("test", small.test)):
        written = B.captions_of(part.facts["attributes"][::10].long(), f"{name}/0")
        texts[name] = [c.text for of_bird in written for c in of_bird]
        assert Vocabulary(small.words).encode(texts[name]).tolist() == part.batch["caption"].tolist()
    assert small.words == Vocabulary.of(texts["train"]).words != Vocabulary.of(texts["train"] + texts["test"]).words


def test_a_species_is_a_distribution():
    p = B.species(20)
    assert torch.allclose(p.sum(-1), torch.ones(20, len(B.ATTRIBUTES)))
    for i, values in enumerate(B.ATTRIBUTES.values()):
        assert not p[:, i, len(values) :].any()
    drawn = B.sample(p[:1].expand(500, -1, -1), torch.Generator().manual_seed(0))
    back = torch.bincount(drawn[:, B.COLUMN["back"]], minlength=11) / 500
    assert torch.allclose(back[: len(B.PLUMAGE)], p[0, B.COLUMN["back"], : len(B.PLUMAGE)], atol=0.06)


def test_tuples(data):
    assert len(data.train) == 30 * 4 * 10 and len(data.test) == 10 * 4 * 10
    assert data.train.batch["image"].shape == (120, 3, 64, 64) and data.train.batch["image"].dtype == torch.uint8
    assert torch.equal(data.train.index["image"], torch.arange(1200) // 10)
    batch = data.train.take(torch.tensor([0, 19]))
    assert batch["caption"].shape == (2, 32, len(data.words)) and torch.all(batch["caption"].sum(-1) == 1)
    assert torch.equal(batch["image"][1], data.train.batch["image"][1] / 255)
    assert data.stand_in and data.train.facts["attributes"].shape == (1200, len(B.ATTRIBUTES))


def differ(name, value, n=12):
    """How many pixels change when one attribute of some birds is set to a value, or to the first but that."""
    attributes, jitter = flock(n, 5)
    attributes[:, B.COLUMN["pose"]] = 0
    attributes[:, B.COLUMN["scene"]] = B.ATTRIBUTES["scene"].index("grass")
    other = attributes.clone()
    values = B.ATTRIBUTES[name]
    attributes[:, B.COLUMN[name]], other[:, B.COLUMN[name]] = values.index(value), int(values.index(value) == 0)
    before, after = B.draw(attributes, jitter).int(), B.draw(other, jitter).int()
    return ((before - after).abs().amax(1) > 40).sum((1, 2)).float()


@pytest.mark.parametrize("name, value", [(name, value) for name, values in B.ATTRIBUTES.items() for value in (values[-1:] if values in (B.PLUMAGE, B.HORN) else values[1:])])
def test_every_attribute_shows(name, value):
    assert differ(name, value).median() >= 5, name


def test_named_colours_can_be_seen():
    """The pixels of a part are nearest to the colour that the captions give it, by daylight."""
    attributes, jitter = flock(32, 6)
    attributes[:, B.COLUMN["light"]] = 0
    attributes[:, B.COLUMN["wing pattern"]] = attributes[:, B.COLUMN["belly pattern"]] = 0
    palette = torch.tensor([B.COLOURS[c] for c in B.PLUMAGE])
    for part in ("back", "wing", "belly", "tail", "head", "crown", "throat"):
        right = 0
        other = attributes.clone()
        other[:, B.COLUMN[part]] = (attributes[:, B.COLUMN[part]] + 5) % len(B.PLUMAGE)
        here, there = B.draw(attributes, jitter).float() / 255, B.draw(other, jitter).float() / 255
        for i in range(32):
            changed = (here[i] - there[i]).abs().amax(0) > 0.2
            seen = here[i][:, changed].median(1).values if changed.any() else torch.zeros(3)
            right += int((palette - seen).norm(dim=1).argmin() == attributes[i, B.COLUMN[part]])
        assert right >= 29, f"{part}: {right} of 32"


def test_the_bird_stays_in_the_picture():
    attributes, jitter = flock(96, 7)
    bare = attributes.clone()
    bare[:, B.COLUMN["crown"]] = bare[:, B.COLUMN["bill colour"]] = bare[:, B.COLUMN["head"]] = 0
    bright = bare.clone()
    bright[:, B.COLUMN["crown"]] = bright[:, B.COLUMN["head"]] = 6
    bright[:, B.COLUMN["bill colour"]] = 2
    changed = (B.draw(bare, jitter).int() - B.draw(bright, jitter).int()).abs().amax(1) > 60
    edge = torch.cat([changed[:, 0], changed[:, :, 0], changed[:, :, -1]], 1).any(1)
    assert edge.float().mean() < 0.04, "head and bill are cut off"


def fingerprint(data):
    return hashlib.sha256(b"".join(x.numpy().tobytes() for p in (data.train, data.test) for x in (*p.batch.values(), *p.facts.values()))).hexdigest()


def test_same_bits_in_another_process(elsewhere):
    code = "from mmvae_lite.data.drawn_birds import drawn_birds; from tests.test_drawn_birds import fingerprint; print(fingerprint(drawn_birds(3, 2, 4, 3, seed=5)))"
    here = fingerprint(B.drawn_birds(3, 2, 4, 3, seed=5))
    assert elsewhere(code).strip() == here


def test_another_seed_gives_other_birds(data):
    assert not torch.equal(B.drawn_birds(2, 1, 2, 1, seed=1).train.batch["image"], B.drawn_birds(2, 1, 2, 1, seed=2).train.batch["image"])


def test_refuses_numbers_below_one():
    with pytest.raises(ValueError, match="each: found 0"):
        B.drawn_birds(2, 1, 0)


def test_contact_sheet(data):
    """Pictures with their captions, to be looked at."""
    from PIL import Image, ImageDraw

    folder = Path(os.environ.get("MMVAE_ARTEFACTS", "build/artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    texts = Vocabulary(data.words).decode(data.train.batch["caption"])
    sheet = Image.new("RGB", (1400, 12 * 130), "white")
    for i in range(24):
        x, y = 700 * (i % 2), 130 * (i // 2)
        picture = data.train.batch["image"][4 * i].permute(1, 2, 0).numpy()
        sheet.paste(Image.fromarray(picture).resize((126, 126), Image.Resampling.BICUBIC), (x, y))
        for k in range(9):
            ImageDraw.Draw(sheet).text((x + 132, y + 13 * k), texts[40 * i + k][:95], fill="black")
    sheet.save(folder / "birds.png")
