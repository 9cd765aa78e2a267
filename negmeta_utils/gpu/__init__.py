"""Many Conv4 networks at once on one NVIDIA GPU: Triton kernels, and trainings in lockstep."""
