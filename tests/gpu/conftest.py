"""Triton comes with PyTorch for NVIDIA GPUs alone; nothing here can be imported without it."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["test_*.py"]
