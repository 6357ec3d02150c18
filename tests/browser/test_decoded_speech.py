"""Speech that a trained model decodes can be heard: the sound that the page makes has the spectrum that was decoded."""

import pytest
import torch

from mmvae_lite import explore
from mmvae_lite.data import audio
from mmvae_lite.experiments import find
from mmvae_lite.explore.widgets_base import SOUND
from mmvae_lite.training import fit

from .test_bare_page import _page

pytestmark = pytest.mark.browser


def test_every_mixture_of_content_and_voice_sounds_as_it_was_decoded(new_page, tmp_path):
    (tmp_path / "explore.js").write_text(explore.classic_script(), encoding="utf-8")
    (tmp_path / "explore.css").write_text(explore.stylesheet(), encoding="utf-8")
    (tmp_path / "empty.html").write_text(_page(""), encoding="utf-8")
    experiment = find("pvae_quick-speech")
    data = experiment.data("smoke", 0)
    model, settings = experiment.untrained("smoke", data, 0), experiment.training("smoke", data, 0)
    fit(model, data.train, epochs=20, batch_size=64, optimizers=settings.optimizers(model), progress=False)
    spoken, written = (model.posterior({m: data.test.take(slice(0, 20))[m]}) for m in ("speech", "image"))
    content = torch.cat([spoken["shared"].mean[:10], written["shared"].mean[:10]])
    with torch.no_grad():
        decoded = model.decode({"shared": content, "private/speech": spoken["private/speech"].mean.flip(0)})["speech"]
    assert decoded.std(0).mean() > 0.02, "they differ"
    page = new_page()
    page.goto((tmp_path / "empty.html").as_uri())
    sounds = page.evaluate(
        "([all, scale]) => all.map(one => Array.from(mmvaeExplore.synthesise(Float32Array.from(one), scale)))",
        [decoded.flatten(1).tolist(), SOUND],
    )
    heard = audio.normalise(audio.log_mel([torch.tensor(sound) for sound in sounds])[0])
    for wanted, got in zip(decoded, heard, strict=True):
        assert torch.corrcoef(torch.stack([wanted.flatten(), got.flatten()]))[0, 1] >= 0.9
