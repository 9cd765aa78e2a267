"""Networks of other libraries, written down from their documentation, with random weights."""

from collections import OrderedDict

from torch import nn

N_WAY, FILTERS = 5, 6


def block(inputs, width, order="conv norm relu pool", **options):
    """One block in the given order, its modules called so."""
    slope, eps = options.pop("slope", 0.0), options.pop("eps", 1e-5)
    track, last = options.pop("track", True), options.pop("last", 2)
    parts = {
        "conv": nn.Conv2d(inputs, width, 3, **{"padding": 1, **options}),
        "norm": nn.BatchNorm2d(width, eps=eps, track_running_stats=track),
        "relu": nn.LeakyReLU(slope),
        "pool": nn.MaxPool2d(2, last),
    }
    return nn.Sequential(OrderedDict((name, parts[name]) for name in order.split()))


def blocks(channels=3, width=FILTERS, **options):
    made = [block(channels if b == 0 else width, width, **options) for b in range(4)]
    return nn.Sequential(*made, nn.Flatten())


class Oracle(nn.Module):
    """A body, a linear layer, and how the library calls what is in them."""

    def __init__(self, body, features, keys, n_way=N_WAY):
        super().__init__()
        self.body, self.head, self.keys = body, nn.Linear(features, n_way), keys
        for value in self.parameters():
            value.data.normal_(0, 0.3)

    def forward(self, images):
        return self.head(self.body(images))

    def state(self):
        """The state_dict() of the library."""
        state = {}
        for name, value in self.state_dict().items():
            owner, kind = name.rsplit(".", 1)
            state[f"{self.keys(*owner.split('.'))}.{kind}"] = value
        return state


def named(conv, norm, head, first=1):
    """Keys of four blocks; {} is a block's number."""

    def keys(part, number=0, what=None):
        if part == "head":
            return head
        return {"conv": conv, "norm": norm}[what].format(int(number) + first)

    return keys
