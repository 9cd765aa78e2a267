"""Adam for parameters on a CPU, whose digits do not depend on the processor."""

from inspect import unwrap

import torch

from negmeta_utils.engine import cpu


class Adam(torch.optim.Adam):
    """`torch.optim.Adam` of parameters and a rate alone, its steps in C where that can be."""

    # As they are without a decorator that imports torch's compiler, which takes over a second.
    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    state_dict = unwrap(torch.optim.Adam.state_dict)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)

    @torch.no_grad()
    def step(self) -> None:
        params = [p for group in self.param_groups for p in group["params"]]
        if not all(
            p.device.type == "cpu" and p.is_contiguous() and cpu.compiled(p.dtype) for p in params
        ):
            super().step()
            return
        for group in self.param_groups:
            for param in group["params"]:
                state = self.state[param]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
                    state["exp_avg"] = torch.zeros_like(param)
                    state["exp_avg_sq"] = torch.zeros_like(param)
                state["step"] += 1
                cpu.adam(
                    param, param.grad, state["exp_avg"], state["exp_avg_sq"],
                    group["lr"], group["betas"], group["eps"], int(state["step"]),
                )  # fmt: skip
