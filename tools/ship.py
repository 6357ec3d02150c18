"""Ship the model of a finished run: its weights in half precision, an exhibit of held-out items, and a card for each.

    MMVAE_RUNS=runs MMVAE_DATA=data python tools/ship.py pvae-speech --profile paper --seed 0 [--networks decoders,encoders] [--set units=128]

The run is that of `mmvae reproduce` with the same words; its checkpoint is found in MMVAE_RUNS and its measurements among
the results.  The exhibit is made of the data that the run was trained with.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmvae_lite.cli import Usage, _run
from mmvae_lite.experiments.shipping import load_pretrained, ship
from mmvae_lite.pretrained import SHIPPED


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the experiment, see mmvae list")
    parser.add_argument("--profile", default="lite")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="as the run was trained")
    parser.add_argument("--networks", type=lambda text: text.split(","), help="which ship; all of them if they are small, else the decoders")
    parser.add_argument("--folder", type=Path, default=SHIPPED)
    arguments = parser.parse_args(words)
    try:
        weights, exhibit = ship(_run(arguments, arguments.name), arguments.networks, folder=arguments.folder)
        loaded = load_pretrained(arguments.name, arguments.folder)
    except (Usage, KeyError, ValueError, OSError) as e:
        print(e.args[0] if e.args else e, file=sys.stderr)
        return 1
    items, shown = len(loaded.exhibit), {m: len(x) for m, x in loaded.exhibit.reconstructions.items()}
    print(f"{weights}: {', '.join(loaded.card['networks'])}, {loaded.card['bytes'] / 1e3:.0f} kB")
    print(f"{exhibit}: {items} held-out items, {loaded.exhibit.card['bytes'] / 1e3:.0f} kB, decoded: {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
