"""Which one this process is of those that train one net together (Caffe: Caffe::solver_rank, Caffe::solver_count)."""

_rank, _count = 0, 1


def solver_rank() -> int:
    """Number of this process among those that train together, from 0."""
    return _rank


def solver_count() -> int:
    """How many processes train together."""
    return _count


def set_solver_rank(rank) -> None:
    """Tell which of the processes this is, before its solver is made (see nccl.py)."""
    global _rank
    _rank = rank


def set_solver_count(count) -> None:
    """Tell how many processes train together, before the solver is made."""
    global _count
    _count = count


def set_multiprocess(several) -> None:
    """Part of Caffe's recipe; here a process never holds more than one solver of a job."""
