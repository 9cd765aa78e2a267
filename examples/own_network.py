"""On-task and off-task accuracy of a network of one's own, with weights of one's own."""

from torch import nn

from negmeta_utils.adaptation import init_alpha
from negmeta_utils.data.datasets import load
from negmeta_utils.evaluation import evaluate
from negmeta_utils.networks.modules import network


def block(inputs: int, outputs: int) -> nn.Sequential:
    norm = nn.BatchNorm2d(outputs, track_running_stats=False)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), norm, nn.ReLU(), nn.MaxPool2d(2))


body = (block(1, 8), block(8, 8), nn.AdaptiveAvgPool2d(2), nn.Flatten())
module = nn.Sequential(*body, nn.Linear(32, 5))  # load its weights here
own = network(module, head="4", layers=["0", "1"])
params = dict(module.named_parameters())
alpha = init_alpha("maml", params, inner_lr=0.1, network=own)
table = evaluate(own, params, alpha, load("glyphs", "test"), n_episodes=20, inner_steps=5)
print(table[["same_before", "same_after", "other_before", "other_after", "ordinary"]].mean())
