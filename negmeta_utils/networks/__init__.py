"""Networks: Conv4 (`model`, beside this folder), ResNet-12, those that other libraries' weights are
for, and any `torch.nn.Module`. `find` gives one by name."""
