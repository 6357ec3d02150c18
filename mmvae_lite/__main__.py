"""`python -m mmvae_lite` is the command `mmvae`."""

from mmvae_lite.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
