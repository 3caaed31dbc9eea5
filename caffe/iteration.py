"""Iteration: what a solver lets a machine do between two looks at the log."""


class Iteration:
    """The computation of one training iteration: forward and backward passes over `passes` batches, and the update.

    This one does it step by step; caffe.cuda.graph has one that records the steps and repeats them."""

    def __init__(self, net, update, passes):
        self.wiring, self.executor, self.update, self.passes = net.wiring, net.executor, update, passes

    def forward_backward(self):
        """The mean loss of the passes, a tensor or a number; the gradients are in the parameters' diffs."""
        loss = 0.0
        for _ in range(self.passes):
            loss = loss + self.executor.forward()
            self.executor.backward(at_once=True)
        return loss / self.passes

    def apply_update(self, rates):
        """Update the parameters; `rates`: the learning rate for each lr_mult."""
        self.update.apply(rates)
