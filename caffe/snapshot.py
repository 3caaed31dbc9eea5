"""Snapshots: <prefix>_iter_<n>.caffemodel with the weights, .solverstate with history and iteration (or HDF5)."""

import math
import os
import re

import h5py
import numpy as np
import torch

from caffe import device, machine, packed, weights
from caffe import glog as log
from caffe.errors import CaffeError
from caffe.files import atomic_path, bears_seal, seal_of, write_sealed
from caffe.proto import caffe_pb2
from caffe.read import read_binary

LONGEST_NAME = 4096  # bytes, as long as a path may be on Linux


def save(solver):
    """Write both files of `solver`; the state last, so that a state on disk always has its weights."""
    param = solver.param
    for node in solver.net.nodes:
        if not all(bool(blob.tensor().isfinite().all()) for blob in node.layer.blobs):
            raise CaffeError(
                f"Iteration {solver.iter}: layer '{node.name}' holds weights that are not finite; "
                "they are not saved, earlier snapshots stay"
            )
    stem = f"{param.snapshot_prefix}_iter_{solver.iter}"
    if param.snapshot_format == param.HDF5:
        model = f"{stem}.caffemodel.h5"
        log.info("solver.cpp:472", f"Snapshotting to HDF5 file {model}")
        weights.save_hdf5(solver.net, model, param.snapshot_diff)
        _tell_layers(solver, model)
        _save_state_hdf5(solver, f"{stem}.solverstate.h5", model)
    else:
        model = f"{stem}.caffemodel"
        log.info("solver.cpp:464", f"Snapshotting to binary proto file {model}")
        weights.save(solver.net, model, param.snapshot_diff)
        _tell_layers(solver, model)
        _save_state(solver, f"{stem}.solverstate", model)


def _tell_layers(solver, model):
    """Users' layers that ask for it (`__caffe_saved__`, see caffe.layer) may write beside the weights."""
    for layer in solver.net.layers:
        if told := getattr(layer, "__caffe_saved__", None):
            told(model, solver.net.loaded_from)


def restore_newest_good(solver, path):
    """As `restore`; where `path` turns out damaged, go back to the newest older snapshot that is whole, and warn."""
    try:
        restore(solver, path)
    except CaffeError as e:
        for older in _older(path):
            log.warning(log.here(), f"{e} -- trying the snapshot before it, {older}")
            try:
                restore(solver, older)
                return
            except CaffeError as worse:
                e = worse
        raise e


def _older(path):
    """Solver states of the same run with fewer iterations, newest first."""
    match = re.fullmatch(r"(.*_iter_)(\d+)(\.solverstate(?:\.h5)?)", os.path.basename(path), re.DOTALL | re.ASCII)
    if not match:
        return []
    folder, found = os.path.dirname(path), {}
    for name in os.listdir(folder or ".") if os.path.isdir(folder or ".") else ():
        other = re.fullmatch(re.escape(match[1]) + r"(\d+)" + re.escape(match[3]), name, re.ASCII)
        if other and int(other[1]) < int(match[2]):
            found[int(other[1])] = os.path.join(folder, name)
    return [found[n] for n in sorted(found, reverse=True)]


def restore(solver, path):
    """Bring `solver` to the state in the file `path`: weights, history, iteration, random numbers."""
    if path.endswith((".caffemodel", ".caffemodel.h5")):
        raise CaffeError(f"{path}: weights alone are no state to go on from; give them as weights, or a .solverstate")
    state, history = (_read_state_hdf5 if path.endswith(".h5") else _read_state)(solver, path)
    if state.iter < 0:
        raise CaffeError(f"{path}: says that it is of iteration {state.iter}; it is damaged")
    log.info("sgd_solver.cpp:336", "SGDSolver: restoring history")
    if state.learned_net:
        solver.net.copy_from(_weights_of(state, path))
    for blob, value in zip(solver.history, history):
        blob.memory.assign(torch.from_numpy(value))
    solver.iter, solver.current_step = state.iter, state.current_step
    if state.HasField("random_seed") and solver.param.random_seed < 0:
        solver.seed = state.random_seed
    here = machine.told(device.current)
    if state.computed_by not in ("", here):
        log.warning(
            log.here(),
            f"{path} was computed by {state.computed_by}; this is {here}: the last digits may come out otherwise than "
            "in an unbroken run (docs/RELIABILITY.md tells what stays equal)",
        )
    solver.seek(solver.iter)


def _weights_of(state, path):
    """The weights where the state says, else beside the state (snapshots are often moved together)."""
    beside = os.path.join(os.path.dirname(path), os.path.basename(state.learned_net))
    present = [model for model in (state.learned_net, beside) if os.path.exists(model)]
    for model in present:
        if not state.weights_seal or bears_seal(model, state.weights_seal):
            return model
    if present:
        raise CaffeError(
            f"{present[0]}: it is not the file that {path} was saved with, or its beginning is damaged; "
            "use an older snapshot"
        )
    return state.learned_net


def _save_state(solver, path, model):
    log.info("sgd_solver.cpp:284", f"Snapshotting solver state to binary proto file {path}")
    state = caffe_pb2.SolverState(
        iter=solver.iter,
        learned_net=model,
        current_step=solver.current_step,
        random_seed=solver.seed,
        weights_seal=seal_of(model),
        computed_by=machine.told(device.current),
    )
    for blob in solver.history:
        weights.blob_to_proto(blob, state.history.add())
    write_sealed(path, state.SerializeToString())


def _check_history(solver, path, shapes):
    if len(shapes) != len(solver.history):
        raise CaffeError(
            f"{path}: Incorrect length of history blobs: {len(shapes)} in the file, the solver "
            f"({solver.type}) has {len(solver.history)}"
        )
    for i, (blob, shape) in enumerate(zip(solver.history, shapes)):
        if shape != blob.shape:
            raise CaffeError(f"{path}: history blob {i} has shape {shape}, the solver's has {blob.shape}")


def _read_state(solver, path):
    try:
        state = read_binary(path, caffe_pb2.SolverState)
    except CaffeError as e:
        raise CaffeError(f"{path}: cannot read the solver state: {e}") from e
    shapes = [packed.shape(proto) for proto in state.history]
    _check_history(solver, path, shapes)
    history = []
    for i, (proto, shape) in enumerate(zip(state.history, shapes)):
        values = packed.read(proto, "data")
        if values.size != math.prod(shape):
            raise CaffeError(f"{path}: history blob {i} holds {values.size} values for shape {shape}; it is damaged")
        history.append(values.reshape(shape))
    return state, history


def _save_state_hdf5(solver, path, model):
    log.info("sgd_solver.cpp:296", f"Snapshotting solver state to HDF5 file {path}")
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as f:
        f.create_dataset("iter", data=np.array([solver.iter], "<i4"))
        name = model.encode()
        f.create_dataset("learned_net", data=np.array(name, f"S{len(name) + 1}"))  # Caffe reads up to the final zero
        f.create_dataset("current_step", data=np.array([solver.current_step], "<i4"))
        f.create_dataset("random_seed", data=np.array([solver.seed], "<u8"))
        f.create_dataset("computed_by", data=np.bytes_(machine.told(device.current)))
        group = f.create_group("history")
        for i, blob in enumerate(solver.history):
            weights.create_checked(group, str(i), blob.tensor().to("cpu").numpy())


def _read_state_hdf5(solver, path):
    with weights.open_hdf5(path, "solver state") as f:
        missing = [k for k in ("iter", "current_step", "history") if k not in f]
        if missing:
            raise CaffeError(f"{path}: not a Caffe solver state (it has no '{missing[0]}')")
        state = caffe_pb2.SolverState(iter=int(f["iter"][0]), current_step=int(f["current_step"][0]))
        if "learned_net" in f:
            if f["learned_net"].nbytes > LONGEST_NAME:
                raise CaffeError(
                    f"{path}: the name of the weights file takes {f['learned_net'].nbytes} bytes; the file is damaged"
                )
            name = f["learned_net"][()]
            state.learned_net = name.decode() if isinstance(name, bytes) else str(name)
        if "random_seed" in f:
            state.random_seed = int(f["random_seed"][0])
        if "computed_by" in f and f["computed_by"].nbytes <= LONGEST_NAME and f["computed_by"].dtype.kind == "S":
            state.computed_by = f["computed_by"][()].decode(errors="replace")
        group = f["history"]
        found = [group[str(i)] for i in range(len(group))]
        _check_history(solver, path, [dataset.shape for dataset in found])
        return state, [weights.hdf5_values(dataset) for dataset in found]
