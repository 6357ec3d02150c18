"""The peak memory of one side in a process of its own: memory.py ours|theirs DATA MODEL K, in MB."""

import resource
import sys

STEPS = 3


def main(side: str, data: str, model: str, samples: str) -> None:
    if side == "ours":
        sys.modules["peer"] = _Nobody("peer")  # our side does not pay for the other's imports
    from run import BATCH, step_of
    from twins import twins

    pair = twins(model, data, BATCH, int(samples))
    ours, theirs = pair.optimizers() if side == "theirs" else (_adam(pair.our_model), None)
    step = step_of(pair.ours, ours) if side == "ours" else step_of(pair.theirs, theirs)
    if side == "theirs":
        pair.our_model = None
    for _ in range(STEPS):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _adam(model):
    import torch

    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


class _Nobody(type(sys)):
    """Stands where the peer would, and gives back nothing that takes memory."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: {} if name == "copies" else _Silent()


class _Silent:
    def train(self) -> None: ...


if __name__ == "__main__":
    main(*sys.argv[1:])
