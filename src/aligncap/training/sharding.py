"""What DeepSpeed is told: a user's file, and the settings of the run, which it may not deny.

Weights, gradients and moments shared out by torch's own `fully_shard` (FSDP2).

Moments, gradients and weights shared out by DeepSpeed (ZeRO stages 1, 2 and 3).
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from aligncap.errors import MissingModelError, RecipeError
from aligncap.training.checkpoints import OPTIMIZER_FILE, Layout, make_optimizer, trained
from aligncap.training.devices import DataParallel, Losses, WrappedModel, processes, training_device
from aligncap.training.settings import FitSettings

STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}

AUTO = "auto"
"""In a file: as the recipe says."""


def engine_config(settings: FitSettings, *, share: int) -> dict[str, Any]:
    """DeepSpeed's configuration of a run; nothing of it is left to its defaults that matters.

    Its own clipping is 1.0 where nothing is said; 0.0 clips nothing. The rows of a batch are ours
    to count: of `train_micro_batch_size_per_gpu` only the product is read. RecipeError where the
    file of `settings.deepspeed` cannot be read, or says another thing than the recipe.
    """
    own = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": share,
        "gradient_clipping": settings.clip_norm or 0.0,
        "zero_optimization": {"stage": STAGES[settings.sharding]},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }
    if settings.deepspeed is None:
        return own
    return _joined(_read(settings.deepspeed), own, place=str(settings.deepspeed))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); give DeepSpeed's JSON") from error
    if not isinstance(found, dict):
        raise RecipeError(f"{path}: is no JSON object; give DeepSpeed's JSON")
    return found


def _joined(told: Mapping[str, Any], own: Mapping[str, Any], *, place: str) -> dict[str, Any]:
    """Both, section by section; what both say must be the same."""
    found = dict(told)
    for key, value in own.items():
        other = told.get(key, AUTO)
        if isinstance(value, Mapping):
            section = {} if other == AUTO else other
            found[key] = _joined(section, value, place=f"{place}: {key}")
        elif other not in (AUTO, value):
            raise RecipeError(
                f"{place}: {key} is {other}, but the recipe makes it {value}; "
                f'leave it out of the file, or write "{AUTO}"'
            )
        else:
            found[key] = value
    return found


class Fsdp(DataParallel):
    """Each process keeps its part of every weight; a layer is gathered while it is used.

    Layers are what the language model says must not be split; everything beside them is gathered
    for the whole of a step. Gradients are shared out after each batch, so that no process ever
    keeps them whole.
    """

    def __init__(self, model: nn.Module, settings: FitSettings, *, share: int) -> None:
        self._layout = Layout(model)
        super().__init__(model, settings, share=share)

    def _wrapped(self, trunk: WrappedModel) -> nn.Module:
        state = processes()
        mesh = init_device_mesh(state.device.type, (state.num_processes,))
        for layer in layers_of(trunk.model):
            fully_shard(layer, mesh=mesh)
        fully_shard(trunk, mesh=mesh)
        return trunk

    def learn(self, losses: Losses, batch: Any, *, last: bool) -> Mapping[str, Tensor]:
        """As `Parallel` says."""
        del last
        values: Mapping[str, Tensor] = self._trunk(losses, batch)
        (values["loss"] / self._share).backward()  # type: ignore[no-untyped-call]
        return values

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """As `Parallel` says; layers are gathered as they are used, so processes must do alike."""
        found = self._trunk(function, *given)
        self._trunk.reshard()  # type: ignore[operator]
        return found

    def held(self) -> int:
        """As `Parallel` says."""
        weights = sum(_part(p) for p in self._model.parameters())
        return weights + 2 * sum(_part(p) for p in trained(self._model).values())

    def finish(self) -> None:
        """As `Parallel` says."""
        self._layout.restore()


def _part(parameter: Tensor) -> int:
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    return local.numel()


def layers_of(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of a language model of transformers, by the names of classes it must not be split
    within; none of another model."""
    kinds: set[str] = set()
    for module in model.modules():
        kinds.update(getattr(module, "_no_split_modules", None) or ())
    for module in model.modules():
        if type(module).__name__ in kinds:
            yield module


MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's, by torch's names."""


class Zero:
    """DeepSpeed's engine around torch's AdamW."""

    def __init__(self, model: nn.Module, settings: FitSettings, *, share: int) -> None:
        deepspeed = _library()
        self._model, self._stage = model, STAGES[settings.sharding]
        self._layout = Layout(model)
        self._engine, *_ = deepspeed.initialize(
            model=WrappedModel(model),
            optimizer=make_optimizer(model, settings),
            config=engine_config(settings, share=share),
            dist_init_required=False,
        )
        self._begin_moments()

    def learn(self, losses: Losses, batch: Any, *, last: bool) -> Mapping[str, Tensor]:
        """As `Parallel` says; the engine divides the loss and counts the batches itself."""
        with _quiet():
            values: Mapping[str, Tensor] = self._engine(losses, batch)
            self._engine.backward(values["loss"])
            if not last:
                self._engine.step()
        return values

    def follow(self, rate: float) -> float:
        """As `Parallel` says."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        with _quiet():
            self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """As `Parallel` says; under stage 3 weights are gathered as they are used."""
        with _quiet():
            return self._engine(function, *given) if self._stage == 3 else function(*given)

    def moments(self) -> Mapping[str, Tensor]:
        """As `Parallel` says."""
        from deepspeed.utils import safe_get_full_optimizer_state

        found: dict[str, Tensor] = {}
        for name, parameter in trained(self._model).items():
            found[f"step/{name}"] = self._states()[0]["step"]
            for moment in MOMENTS:
                found[f"{moment}/{name}"] = safe_get_full_optimizer_state(parameter, moment)
        return found

    def load_moments(self, checkpoint: Path) -> None:
        """As `Parallel` says."""
        stored = load_file(checkpoint / OPTIMIZER_FILE)
        for name, parameter in trained(self._model).items():
            for moment in MOMENTS:
                value = stored.get(f"{moment}/{name}")
                if value is not None:
                    self._put(parameter, moment, value.to(parameter.device))
        steps = [value for name, value in stored.items() if name.startswith("step/")]
        for state in self._states():
            state["step"].fill_(max(float(step) for step in steps))

    def held(self) -> int:
        """As `Parallel` says."""
        weights = [getattr(p, "ds_tensor", p) for p in self._model.parameters()]
        moments = [state[name] for state in self._states() for name in MOMENTS]
        return sum(tensor.numel() for tensor in (*weights, *moments))

    def finish(self) -> None:
        """As `Parallel` says."""
        if self._stage == 3:
            self._layout.restore()
        for parameter in trained(self._model).values():
            # They were parts of one long tensor.
            parameter.data = parameter.detach().clone()
        self._engine.destroy()

    def _states(self) -> list[dict[str, Tensor]]:
        """AdamW's state of each part that this process keeps."""
        return list(self._engine.optimizer.optimizer.state.values())

    def _put(self, parameter: nn.Parameter, moment: str, value: Tensor) -> None:
        """Keep this process's part of a moment."""
        from deepspeed.utils import safe_set_full_optimizer_state

        if self._stage < 3:
            safe_set_full_optimizer_state(parameter, value, moment)
            return
        # DeepSpeed's own function runs past the end of a weight that cannot be cut evenly.
        part, _ = self._engine.optimizer._get_fp32_opt_state_partition(
            parameter, release_swap_buffers=False, optim_state_key=moment
        )
        start = part.numel() * processes().process_index
        own = value.flatten()[start : start + part.numel()]
        part.data[: own.numel()].copy_(own)

    def _begin_moments(self) -> None:
        """The engine makes the moments at its first step; here they are made before, so that a
        checkpoint's can be put in their place."""
        zero = self._engine.optimizer
        if self._stage == 3:
            parts = zero.fp32_partitioned_groups_flat
        else:
            parts = [part for group in zero.optimizer.param_groups for part in group["params"]]
        for part in parts:
            moments = {name: torch.zeros_like(part) for name in MOMENTS}
            step = torch.zeros((), dtype=torch.float32, device=part.device)
            zero.optimizer.state[part] = {"step": step, **moments}
        if self._stage < 3:
            zero._lazy_init_hp_params_optimizer_state()


@contextmanager
def _quiet() -> Iterator[None]:
    """DeepSpeed 0.19 asks torch 2.13 for collectives by their old names: no news for a user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.distributed.*")
        yield


def _library() -> Any:
    try:
        import deepspeed
        import deepspeed.ops
    except ModuleNotFoundError as error:
        raise MissingModelError(
            f"training.sharding by ZeRO needs {error.name}, which is not installed: "
            "pip install 'aligncap[train,devices]'"
        ) from error
    if training_device().type == "cpu":
        # An operation of inference, which would be compiled for minutes and is not used here.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
