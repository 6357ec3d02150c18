"""Drawn house numbers: the same bits anywhere, no picture twice, every digit to be read, and as hard as they should be."""

import hashlib
import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmvae_lite.data import street_numbers as module
from mmvae_lite.data.street_numbers import CHUNK, street_numbers


def as_floats(images):
    return images.float() / 255


def trained(net, images, classes, epochs, lr):
    """A classifier trained with Adam and a falling rate; the noise of the last steps matters for so few pictures."""
    g = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=1e-2)
    steps = epochs * (len(images) // 50)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=g)[: len(images) // 50 * 50].split(50):
            loss = F.cross_entropy(net(images[rows]), classes[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def accuracy(net, images, classes):
    return (net(images).argmax(1) == classes).double().mean().item()


def test_the_same_bits_in_another_process(elsewhere):
    program = "from mmvae_lite.data.street_numbers import street_numbers as s; x, y = s(40, 'test', 3); import hashlib; "
    program += "print(hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest())"
    there = elsewhere(program).strip()
    images, digits = street_numbers(40, "test", 3)
    assert hashlib.sha256(images.numpy().tobytes() + digits.numpy().tobytes()).hexdigest() == there


def test_partitions_and_seeds_share_no_picture_and_longer_sets_begin_alike():
    sizes = {("train", 0): CHUNK + 20, ("test", 0): 300, ("train", 1): 300, ("test", 1): 300}
    sets = {(partition, seed): street_numbers(n, partition, seed) for (partition, seed), n in sizes.items()}
    held = [{x.numpy().tobytes() for x in images} for images, _ in sets.values()]
    assert sum(map(len, held)) == len(set.union(*held)) == sum(len(digits) for _, digits in sets.values())
    images, digits = street_numbers(30)
    assert torch.equal(images, sets["train", 0][0][:30]) and torch.equal(digits, sets["train", 0][1][:30])
    images[:] = 0
    assert bool((street_numbers(30)[0] > 0).any()), "what a caller does to a set changes no other"


def test_digits_come_evenly_and_pictures_are_neither_flat_nor_clipped():
    images, digits = street_numbers(1000)
    assert images.shape == (1000, 3, 32, 32) and images.dtype == torch.uint8 and digits.dtype == torch.int64
    assert digits.bincount(minlength=10).min() > 70
    x = as_floats(images)
    assert 0.3 < x.mean() < 0.6 and x.flatten(1).std(1).min() > 0.02
    clipped = ((images == 0) | (images == 255)).double().flatten(1).mean(1)
    assert clipped.mean() < 0.08
    assert (x.mean((2, 3)).std(1) > 0.03).double().mean() > 0.3, "many are in colour"


def test_neither_brightness_nor_the_wall_tells_the_digit():
    """What surrounds the digit, and the mean colour, must not give it away."""
    images, digits = street_numbers(2000)
    x = as_floats(images)
    border = torch.cat([x[:, :, :2].flatten(1), x[:, :, -2:].flatten(1), x.mean((2, 3))], 1)
    net = trained(nn.Linear(border.shape[1], 10), border[:1500], digits[:1500], 5, 3e-3)
    assert accuracy(net, border[1500:], digits[1500:]) < 0.2


def test_the_digits_of_a_face_differ_in_shape():
    """A digit moved a little in any direction is still most like itself among the ten of its face."""
    faces = module._segments()
    assert faces.shape[:2] == (5, 10) and faces.abs().max() < 1.06
    strokes = module._euclidean(module.drawing.grid(64).expand(50, 64, 64, 2), faces.flatten(0, 1) * 0.7)
    ink = module.drawing.coverage(strokes - 0.12).reshape(5, 10, 64, 64)
    shapes = F.normalize(ink.flatten(2), dim=-1)
    for axis, by in ((-1, 1), (-1, -1), (-2, 1), (-2, -1)):
        likeness = F.normalize(ink.roll(by, axis).flatten(2), dim=-1) @ shapes.mT
        assert torch.equal(likeness.argmax(-1), torch.arange(10).expand(5, 10))


def test_unknown_partitions_and_no_pictures_are_refused(as_a_reader):
    with pytest.raises(KeyError, match="did you mean 'test'"):
        street_numbers(5, "tests")
    with pytest.raises(ValueError, match="n: found 0"):
        street_numbers(0)


def test_a_contact_sheet_is_left_to_be_looked_at():
    """Twenty pictures of every digit in a row, as build/artefacts/street_numbers.png or where MMVAE_ARTEFACTS says."""
    image = pytest.importorskip("PIL.Image")
    images, digits = street_numbers(600, "test")
    sheet = torch.cat([torch.cat(list(images[digits == c][:20]), 2) for c in range(10)], 1).permute(1, 2, 0)
    folder = Path(os.environ.get("MMVAE_ARTEFACTS", "build/artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    image.fromarray(sheet.contiguous().numpy()).resize((sheet.shape[1] * 2, sheet.shape[0] * 2)).save(folder / "street_numbers.png")
    assert sheet.shape == (320, 640, 3)


def standardised(x):
    """Grey pictures of mean 0 and deviation 1: what a first layer of retina would hand on."""
    grey = x.mean(1, keepdim=True)
    return (grey - grey.mean((2, 3), keepdim=True)) / (grey.std((2, 3), keepdim=True) + 0.02)


def logistic_regression(x, classes, z, decay):
    """The classes of z by the minimum of the penalised loss, to which gradient descent may not have come."""
    x, z = (a.flatten(1) - x.flatten(1).mean(0) for a in (x, z))
    weights, biases = torch.zeros(x.shape[1], 10, requires_grad=True), torch.zeros(10, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, biases], max_iter=25, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weights + biases, classes) + decay / 2 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return (z @ weights + biases).argmax(1)


def block(a, b):
    return [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(b), nn.ReLU()]


@pytest.mark.slow
def test_a_linear_classifier_fails_and_a_small_convolutional_one_reads_them():
    """4 000 training pictures, 2 000 others to test: below 40% from pixels, in colour or standardised, above 90% for three layers."""
    torch.manual_seed(0)
    (train, known), (test, wanted) = street_numbers(4000), street_numbers(2000, "test")
    train, test = as_floats(train), as_floats(test)
    grey, test_grey = standardised(train), standardised(test)
    for linear in (logistic_regression(train, known, test, 1e-2), logistic_regression(grey, known, test_grey, 0.1)):
        assert 0.11 < (linear == wanted).double().mean() < 0.4
    layers = [*block(1, 16), *block(16, 32), *block(32, 64), nn.Flatten(), nn.Dropout(0.3), nn.Linear(1024, 10)]
    small = trained(nn.Sequential(*layers).to(memory_format=torch.channels_last), grey, known, 4, 7e-3)
    assert accuracy(small, test_grey, wanted) > 0.9
