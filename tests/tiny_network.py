"""A file with a network of one's own."""

TINY = """
from torch import nn


class TinyNet(nn.Module):
    def __init__(self, n_way, channels=1, width=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3)
        self.norm = nn.BatchNorm2d(width, track_running_stats=False)
        self.fc = nn.Linear(width, n_way)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))
"""
