"""Where training runs, and how the processes of one run share its work (§4.2).

    none     every process holds all weights; gradients are averaged (torch's DDP)
    fsdp     weights, gradients and moments are sharded (torch's FSDP2, `fully_shard`)
    zero1    AdamW's moments are sharded (DeepSpeed's ZeRO)
    zero2    moments and gradients
    zero3    moments, gradients and weights

A single process shards nothing, whatever the setting. Checkpoints hold full tensors, so a run may
be resumed under another setting or number of processes.
"""

import atexit
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from copy import deepcopy
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from aligncap.errors import LostProcessError, MissingModelError, RecipeError
from aligncap.training import checkpoints
from aligncap.training.settings import FitSettings

PROCESS_TIMEOUT = timedelta(hours=2)
"""How long a process waits for another: the first may be filling a teacher's cache meanwhile."""

LAUNCHER_CHOICES = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
"""Variables by which `accelerate launch` passes on a choice that a recipe makes here."""


def processes() -> PartialState:
    """The processes of this run, joined on the first call.

    RecipeError where the launcher chose a way of sharding: the recipe does (`training.sharding`).
    """
    for name in LAUNCHER_CHOICES:
        if os.environ.get(name, "").lower() == "true":
            raise RecipeError(
                f"{name} is set, but the recipe says how a run is sharded: launch with torchrun "
                "and set training.sharding"
            )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    # Without cpu=True, accelerate does not join processes on a machine without a GPU.
    cpu = launched > 1 and not torch.accelerator.is_available()
    state = PartialState(cpu=cpu, timeout=PROCESS_TIMEOUT)
    if state.num_processes != launched:
        raise RecipeError(
            f"{launched} processes were launched, {state.num_processes} joined; launch with "
            "torchrun --nproc_per_node N -m aligncap train …"
        )
    return state


def training_device() -> torch.device:
    """The device that `fit` trains on."""
    device: torch.device = processes().device
    return device


BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Of processors, as Linux names them: Intel and AMD, Intel, ARM."""


def has_bfloat16(cpuinfo: str) -> bool:
    """Whether a text as of /proc/cpuinfo is of a processor with instructions for bfloat16."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    return any(
        name.strip() in ("flags", "Features") and not BFLOAT16_FLAGS.isdisjoint(value.split())
        for name, _, value in lines
    )


def takes_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether the steps on a device run in bfloat16: `FitSettings.precision`, where "auto" asks
    what the device has instructions for."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    with suppress(OSError):  # only Linux has it
        return device.type == "cpu" and has_bfloat16(Path("/proc/cpuinfo").read_text("utf-8"))
    return False


def is_first_process() -> bool:
    """Whether this process is the one that writes files; true where there is only one."""
    first: bool = processes().is_main_process
    return first


def is_distributed() -> bool:
    """Whether several processes train together."""
    return bool(processes().num_processes > 1)


def first_process_first() -> AbstractContextManager[None]:
    """A context that the first process runs alone; the others run it afterwards."""
    return processes().main_process_first()  # type: ignore[no-any-return]


def local_share(batches: int, count: int) -> int:
    """How many of a step's batches each of `count` processes takes; RecipeError if not whole."""
    share, left = divmod(batches, count)
    if left:
        nearest = count * (share + 1)
        raise RecipeError(
            f"a step of {batches} batches (training.accumulation) cannot be shared evenly by "
            f"{count} processes; set training.accumulation to {nearest}, with batch.rows as much "
            "smaller as it is greater, or launch another number of processes"
        )
    return share


def all_gather_number(number: int) -> list[int]:
    """The number of each process, first process first."""
    if not is_distributed():
        return [number]
    found: list[int] = gather_object([number])
    return found


@contextmanager
def reporting_lost_processes(output: Path) -> Iterator[None]:
    """Within it a broken connection becomes LostProcessError, which says how to go on. After it the
    processes part at their ends: one that ends with its connections open may be aborted."""
    atexit.unregister(_part)
    try:
        yield
        if is_distributed():
            atexit.register(_part)
    except RuntimeError as error:
        # Gloo raises plain RuntimeErrors; NCCL's have a type of their own.
        text = str(error).lower()
        marks = ("gloo", "connection closed by peer", "connection reset", "nccl", "broken pipe")
        lost = isinstance(error, torch.distributed.DistError) or any(m in text for m in marks)
        if not is_distributed() or not lost:
            raise
        kept = checkpoints.latest_checkpoint(output)
        hint = (
            f"{kept} keeps all up to its step: run the same command with --resume to go on"
            if kept
            else "there is no checkpoint yet: start again, with a smaller save_every"
        )
        rank = processes().process_index
        raise LostProcessError(
            f"{output}: process {rank} lost another process of this run; {hint}"
        ) from error


def _part() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


Losses = Callable[[Any], Mapping[str, Tensor]]


def open_strategy(model: nn.Module, settings: FitSettings, *, share: int) -> "DataParallel":
    """The strategy that the settings name; `share` is how many batches of a step a process takes.

    The model must be the same in every process. MissingModelError where DeepSpeed is asked for
    and not installed.
    """
    strategy = DataParallel
    if is_distributed() and settings.sharding != "none":
        strategy = Fsdp if settings.sharding == "fsdp" else Zero
    return strategy(model, settings, share=share)


class WrappedModel(nn.Module):
    """The module that DDP, FSDP and DeepSpeed wrap, whose forward calls a function.

    Wrappers act on forward, but losses call other methods of a model, several, or a part of it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns."""
        return function(*arguments)


class DataParallel:
    """All weights in every process, torch's AdamW, and DDP where there are several.

    The other strategies are subclasses. Every process must call the same methods in the same order.
    """

    def __init__(self, model: nn.Module, settings: FitSettings, *, share: int) -> None:
        self._model, self._settings, self._share = model, settings, share
        self._wrapped = self._wrap(WrappedModel(model))
        self._optimizer = checkpoints.make_optimizer(model, settings)

    def _wrap(self, wrapped: WrappedModel) -> nn.Module:
        if not is_distributed():
            return wrapped
        device = training_device()
        return DistributedDataParallel(
            wrapped,
            device_ids=None if device.type == "cpu" else [device],
            forward_sync_buffers=False,
            find_unused_parameters=True,  # a batch may leave a weight out, others may use it
            init_sync=False,
        )

    def backward(
        self, losses: Losses, batch: Any, *, factor: float, last: bool
    ) -> Mapping[str, Tensor]:
        """The losses of a batch, whose gradient times `factor` is accumulated.

        `last` marks the last batch of a step; DDP averages gradients there only.
        """
        local = isinstance(self._wrapped, DistributedDataParallel) and not last
        with self._wrapped.no_sync() if local else nullcontext():  # type: ignore[operator]
            values: Mapping[str, Tensor] = self._wrapped(losses, batch)
            (values["loss"] * factor / self._share).backward()  # type: ignore[no-untyped-call]
        return values

    def optimizer_step(self, rate: float) -> float:
        """Clip the gradient and take a step at this learning rate; returns its norm before."""
        limit = self._settings.clip_norm
        parameters = list(checkpoints.trained(self._model).values())
        norm = nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["rate_share"]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(checkpoints.full_tensor(norm))

    def run_wrapped(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns that uses the model without training it."""
        return function(*arguments)

    def moments(self) -> Mapping[str, Tensor]:
        """AdamW's state by "<what>/<weight>", each possibly sharded (`full_tensor`)."""
        return checkpoints.moments_of(self._model, self._optimizer)

    def load_moments(self, checkpoint: Path) -> None:
        """Put a checkpoint's AdamW state back."""
        checkpoints.load_moments(self._model, self._optimizer, checkpoint)

    def local_numel(self) -> int:
        """How many numbers of weights and moments this process keeps between steps."""
        weights = sum(_local_numel(p) for p in self._model.parameters())
        return weights + 2 * sum(_local_numel(p) for p in checkpoints.trained(self._model).values())

    def unshard(self) -> None:
        """Give the model its full weights back, in plain modules."""


def _local_numel(parameter: Tensor) -> int:
    if isinstance(parameter, DTensor):
        return parameter.to_local().numel()
    # ZeRO-3 keeps this process's part in an attribute of an empty parameter.
    return int(getattr(parameter, "ds_tensor", parameter).numel())


def _full_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Plain parameters with the full weights, by name; those of a tied weight are one object."""
    made: dict[int, nn.Parameter] = {}
    named = list(model.named_parameters(remove_duplicate=False))
    for _, p in named:
        if id(p) not in made:
            made[id(p)] = nn.Parameter(checkpoints.full_tensor(p), requires_grad=p.requires_grad)
    return {name: made[id(p)] for name, p in named}


def _put_parameters(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        owner, _, attribute = name.rpartition(".")
        model.get_submodule(owner).register_parameter(attribute, parameter)


class Fsdp(DataParallel):
    """Each process keeps a shard of every weight; a decoder layer is gathered while it is used.

    Weights outside the decoder layers are gathered for a whole step. Gradients are reduced and
    scattered after each batch, so that no process ever keeps all of them.
    """

    def _wrap(self, wrapped: WrappedModel) -> nn.Module:
        state = processes()
        mesh = init_device_mesh(state.device.type, (state.num_processes,))
        layers = decoder_layers(self._model)
        # `fully_shard` has no inverse: `unshard` puts these copies back in place of its layers.
        self._plain_layers = {name: _without_weights(layer) for name, layer in layers.items()}
        for layer in layers.values():
            fully_shard(layer, mesh=mesh)
        fully_shard(wrapped, mesh=mesh)
        return wrapped

    def backward(
        self, losses: Losses, batch: Any, *, factor: float, last: bool
    ) -> Mapping[str, Tensor]:
        """As `DataParallel`; gradients are reduced after every batch."""
        del last
        values: Mapping[str, Tensor] = self._wrapped(losses, batch)
        (values["loss"] * factor / self._share).backward()  # type: ignore[no-untyped-call]
        return values

    def run_wrapped(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """As `DataParallel`; layers are gathered as they are used, in every process alike."""
        found = self._wrapped(function, *arguments)
        self._wrapped.reshard()  # type: ignore[operator]
        return found

    def unshard(self) -> None:
        """As `DataParallel`; the decoder layers are new objects."""
        full = _full_parameters(self._model)
        for name, layer in self._plain_layers.items():
            layer.train(self._model.get_submodule(name).training)
            self._model.set_submodule(name, layer)
        _put_parameters(self._model, full)


def decoder_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of transformers' language models by name: modules of the classes that a model
    says must not be split; none of another model."""
    kinds: set[str] = set()
    for module in model.modules():
        kinds.update(getattr(module, "_no_split_modules", None) or ())
    return {n: module for n, module in model.named_modules() if type(module).__name__ in kinds}


def _without_weights(module: nn.Module) -> nn.Module:
    """A copy of a module with its own buffers, and parameters on the meta device."""
    memo: dict[int, Any] = {id(buffer): buffer for buffer in module.buffers()}
    for p in module.parameters():
        meta = torch.empty_like(p, device="meta")
        memo[id(p)] = nn.Parameter(meta, requires_grad=p.requires_grad)
    return deepcopy(module, memo)


ZERO_STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's, by torch's names."""


class Zero(DataParallel):
    """DeepSpeed's engine around torch's AdamW (ZeRO stages 1, 2 and 3)."""

    def __init__(self, model: nn.Module, settings: FitSettings, *, share: int) -> None:
        try:
            import deepspeed
        except ModuleNotFoundError as error:
            raise MissingModelError(
                f"training.sharding by ZeRO needs {error.name}, which is not installed: "
                "pip install 'aligncap[train,devices]'"
            ) from error
        self._model, self._stage = model, ZERO_STAGES[settings.sharding]
        self._optimizer = checkpoints.make_optimizer(model, settings)
        groups = [list(group["params"]) for group in self._optimizer.param_groups]
        self._engine, *_ = deepspeed.initialize(
            model=WrappedModel(model),
            optimizer=self._optimizer,
            config=engine_config(settings, share=share),
            dist_init_required=False,
        )
        self._members: dict[Tensor, list[nn.Parameter]] = {}
        """Below stage 3 the weights of each flat partition, one for a group of AdamW's."""
        if self._stage < 3:
            for group, members in zip(self._optimizer.param_groups, groups, strict=True):
                self._members[group["params"][0]] = members
        self._loaded: dict[str, Tensor] = {}
        """A checkpoint's moments that AdamW does not have yet."""

    def backward(
        self, losses: Losses, batch: Any, *, factor: float, last: bool
    ) -> Mapping[str, Tensor]:
        """As `DataParallel`; the engine divides the loss and counts the batches itself."""
        with _old_names_ignored():
            values: Mapping[str, Tensor] = self._engine(losses, batch)
            self._engine.backward(values["loss"] * factor)
            if not last:
                self._engine.step()
        return values

    def optimizer_step(self, rate: float) -> float:
        """As `DataParallel`."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["rate_share"]
        with _old_names_ignored(), self._loading():
            self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def run_wrapped(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """As `DataParallel`; under stage 3 weights are gathered as they are used."""
        with _old_names_ignored():
            return self._engine(function, *arguments) if self._stage == 3 else function(*arguments)

    def moments(self) -> Mapping[str, Tensor]:
        """As `DataParallel`."""
        from deepspeed.utils import safe_get_full_optimizer_state

        if self._loaded:
            return self._loaded
        step = next(iter(self._optimizer.state.values()))["step"]
        found: dict[str, Tensor] = {}
        for name, parameter in checkpoints.trained(self._model).items():
            found[f"step/{name}"] = step
            for moment in MOMENTS:
                found[f"{moment}/{name}"] = safe_get_full_optimizer_state(parameter, moment)
        return found

    def load_moments(self, checkpoint: Path) -> None:
        """As `DataParallel`; AdamW has them from its next step on."""
        self._loaded = checkpoints.load_tensors(checkpoint, checkpoints.OPTIMIZER_FILE)

    @contextmanager
    def _loading(self) -> Iterator[None]:
        """Within it AdamW, before it steps a partition, is given the loaded moments of its weights.

        DeepSpeed lays out partitions and has AdamW step one after another; until AdamW has a
        state for a partition, DeepSpeed's functions cannot set the moments of weights in it.
        """
        if not self._loaded:
            yield
            return
        done = max(float(value) for name, value in self._loaded.items() if name[:5] == "step/")
        names = {parameter: name for name, parameter in checkpoints.trained(self._model).items()}

        def load(optimizer: torch.optim.Optimizer, *_: object) -> None:
            for partition in chain(*(group["params"] for group in optimizer.param_groups)):
                step = torch.tensor(done, dtype=torch.float32, device=partition.device)
                zeros = {name: torch.zeros_like(partition) for name in MOMENTS}
                optimizer.state[partition] = {"step": step, **zeros}
                for parameter in self._linked(partition) or list(names):
                    with suppress(KeyError):  # its partition is stepped later
                        self._put_moments(parameter, names[parameter])
                        del names[parameter]

        hook = self._optimizer.register_step_pre_hook(load)
        yield
        hook.remove()
        self._loaded = {}

    def _linked(self, partition: Tensor) -> list[nn.Parameter]:
        """Below stage 3 the weights of a flat partition, each linked to its part of the state."""
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        members = self._members.get(partition, [])
        lazy_init_hp_params_optimizer_state(members, partition, self._optimizer.state)
        return members

    def _put_moments(self, parameter: nn.Parameter, name: str) -> None:
        """Keep this process's part of a weight's loaded moments."""
        from deepspeed import utils

        for moment in MOMENTS:
            value = self._loaded.get(f"{moment}/{name}")
            if value is None:
                continue
            value = value.to(parameter.device)
            if self._stage < 3:
                utils.safe_set_full_optimizer_state(parameter, value, moment)
                continue
            # Of DeepSpeed's functions, the one for full tensors fails where a weight cannot be cut
            # evenly: the last part is padded.
            size = utils.safe_get_local_optimizer_state(parameter, moment).numel()
            own = value.flatten()[processes().process_index * size :][:size]
            padded = nn.functional.pad(own, (0, size - own.numel()))
            utils.safe_set_local_optimizer_state(parameter, padded, moment)

    def local_numel(self) -> int:
        """As `DataParallel`; below stage 3 all weights, and the moments of this process's parts."""
        if self._stage == 3:
            return super().local_numel()
        weights = sum(p.numel() for p in self._model.parameters())
        return weights + 2 * sum(partition.numel() for partition in self._members)

    def unshard(self) -> None:
        """As `DataParallel`."""
        if self._stage < 3:
            self._engine.destroy()
            for parameter in checkpoints.trained(self._model).values():
                parameter.data = parameter.detach().clone()  # it was part of one long tensor
            return
        full = _full_parameters(self._model)
        self._engine.destroy()
        _put_parameters(self._model, full)


@contextmanager
def _old_names_ignored() -> Iterator[None]:
    """DeepSpeed 0.19 asks torch 2.13 for collectives by their old names, which warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.distributed.*")
        yield


AUTO = "auto"
"""In DeepSpeed's file: as the recipe says."""


def engine_config(settings: FitSettings, *, share: int) -> dict[str, Any]:
    """DeepSpeed's configuration: that of the file `settings.deepspeed`, and the recipe's.

    Gradients are clipped as the recipe says (DeepSpeed's default is 1.0; 0.0 clips nothing). A
    batch has as many rows as the recipe makes it, so DeepSpeed's own batch size is 1. RecipeError
    where the file cannot be read or differs from the recipe.
    """
    recipe = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": share,
        "gradient_clipping": settings.clip_norm or 0.0,
        "zero_optimization": {"stage": ZERO_STAGES[settings.sharding]},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }
    path = settings.deepspeed
    if path is None:
        return recipe
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); give DeepSpeed's JSON") from error
    if not isinstance(found, dict):
        raise RecipeError(f"{path}: is no JSON object; give DeepSpeed's JSON")
    return _merged(found, recipe, place=str(path))


def _merged(file: Mapping[str, Any], recipe: Mapping[str, Any], *, place: str) -> dict[str, Any]:
    """Both, section by section; a key of both must have one value."""
    found = dict(file)
    for key, value in recipe.items():
        other = file.get(key, AUTO)
        if isinstance(value, Mapping):
            section = {} if other == AUTO else other
            if not isinstance(section, Mapping):
                raise RecipeError(
                    f"{place}: {key} is {other!r}, must be an object; leave it out of the file"
                )
            found[key] = _merged(section, value, place=f"{place}: {key}")
        elif other not in (AUTO, value):
            raise RecipeError(
                f"{place}: {key} is {other}, but the recipe makes it {value}; "
                f'leave it out of the file, or write "{AUTO}"'
            )
        else:
            found[key] = value
    return found
