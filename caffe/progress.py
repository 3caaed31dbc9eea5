"""The line at the foot of a terminal while a solver trains: iterations, rate, time left, loss."""

import contextlib
import sys

from caffe import glog


@contextlib.contextmanager
def progress_line(solver):
    """Show it, under the log's lines, where stderr is a terminal; elsewhere (a file, a pipe) change nothing."""
    if not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    bar = tqdm(
        total=solver.param.max_iter,
        initial=solver.iter,
        unit=" iter",
        desc=solver.net.name or None,
        file=sys.stderr,
        dynamic_ncols=True,
    )

    def show():
        done = solver.iter + 1  # called before the update that counts this iteration
        if solver.param.display and solver.iter % solver.param.display == 0:
            bar.set_postfix(loss=glog.number(float(solver.smoothed_loss)), refresh=False)
        bar.update(done - bar.n)

    solver.add_callback(lambda: None, show)
    glog.around_line = tqdm.external_write_mode  # takes the bar away, and puts it back below the new line
    try:
        yield
    finally:
        glog.around_line = contextlib.nullcontext
        bar.close()
