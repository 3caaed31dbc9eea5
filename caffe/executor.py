"""Executor: runs the nodes of a net forward and backward, and keeps what is to be kept in between."""

from caffe import chains, debug_info, replay
from caffe.errors import CaffeError, note_layer
from caffe.node import Node

MOMENTS = ("before_forward", "after_forward", "before_backward", "after_backward")


class Executor:
    """Runs `wiring`'s nodes in order, on the values in its blobs.

    It keeps all values and gradients, for users to look at and for further backward passes; once `frugal`, only what is
    still needed: what was released reads as zero afterwards."""

    def __init__(self, wiring, seeds, debug=False):
        self.wiring, self.seeds = wiring, seeds
        self.debug_info = debug
        self.keep = True
        self.chains = chains.find(wiring.nodes)
        self.replay: replay.Replay | None = None  # of the last forward pass, where the next one can be the same
        self.callbacks: dict[str, list] = {moment: [] for moment in MOMENTS}  # each is called with a node's number

    @property
    def watched(self) -> bool:
        """True where somebody is to be called, or told in the log, before or after layers."""
        return self.debug_info or any(self.callbacks.values())

    @property
    def _trains(self) -> bool:
        """True where a backward pass may follow."""
        return any(node.duty.backward for node in self.wiring.nodes)

    def frugal(self, backward=True):
        """Keep only what is still needed from now on; without `backward` there can be no backward pass."""
        self.keep = False
        for node in self.wiring.nodes:
            node.duty.keep = False
            node.duty.backward = node.duty.backward and backward

    def forward(self, first=0, last=None, without=()):
        """Run the nodes number `first` to `last`; the loss, a sum of weighted tops: a tensor (or 0.0), so that a GPU
        need not be waited for. `without`: the numbers of nodes whose tops are there already."""
        nodes = self.wiring.nodes
        if first == 0 or nodes[first].fresh:  # not the second part of a pass
            self.seeds.pass_index += 1
        last = len(nodes) - 1 if last is None else last
        loss, done, watched = 0.0, set(without), self.watched
        whole = first == 0 and last == len(nodes) - 1 and not (done or watched or self._trains)
        if whole and self.replay and self.replay.stands(self):
            self.replay.run()
            return loss
        self.replay = None
        chained: dict[int, list[Node]] = {}  # what convolutions have done the work of, and those themselves
        for node in nodes[first : last + 1]:
            if watched:
                self._call("before_forward", node)
            if node.index not in done:
                if followers := self._forward(node, last, without):
                    chained |= {node.index: followers} | {each.index: [] for each in followers}
                    done.update(each.index for each in followers)
            if any(node.loss_weights):
                for blob, weight in zip(node.tops, node.loss_weights):
                    if weight:
                        loss = loss + (blob.memory.tensor() * blob.grad.tensor()).sum()
            if self.debug_info:
                debug_info.forward(self.wiring, node)
            if watched:
                self._call("after_forward", node)
            for blob in node.last_reads if not self.keep else ():
                blob.memory.release()
        for node in nodes[last + 1 :]:
            node.fresh = False
        if whole:
            self.replay = replay.record(self, chained)
        return loss

    def backward(self, first=None, last=0, at_once=False):
        """Run the nodes number `first` (the last one by default) down to `last` backward.

        As in Caffe, gradients are of the values that the blobs hold now, whoever has written them. `at_once`: they hold
        those of the forward pass, from which nobody has had control since."""
        nodes, look, watched = self.wiring.nodes, self.keep and not at_once, self.watched
        written = {memory.storage for node in nodes for memory in node.written()} if look else set()
        for node in reversed(nodes[last : None if first is None else first + 1]):
            if watched:
                self._call("before_backward", node)
            if node.duty.backward:
                if look or node.duty.rereads:
                    self._guarded(node, self._look_again, written)
                elif not at_once:
                    self._guarded(node, self._missed)
                self._guarded(node, self._backward_layer)
                if self.debug_info:
                    debug_info.backward(self.wiring, node)
            if watched:
                self._call("after_backward", node)
            if not self.keep:
                self._release_diffs(node)
        if self.debug_info and first is None:
            debug_info.params(self.wiring)

    def reshape(self):
        """Let every layer set its tops' shapes anew."""
        for node in self.wiring.nodes:
            self._guarded(node, Node.reshape)
            node.fresh = False

    def forget(self):
        """Give up what layers have made of their parameters."""
        self.replay = None
        for node in self.wiring.nodes:
            if node.builtin.prepared:
                node.builtin.prepared = None

    def first_not_finite(self) -> str:
        """Tells the first blob or parameter, in the order of the layers, that holds a NaN or an infinity."""
        nodes = self.wiring.nodes
        for node in nodes:
            if node.bottoms or node.type != "Python":  # a frugal net has dropped its blobs: compute them again
                node.layer.forward(node.bottoms, node.tops)
        for node in nodes:
            for k, blob in enumerate(node.layer.blobs):
                if not bool(blob.tensor().isfinite().all()):
                    return f"the first bad values are in parameter {k} of layer '{node.name}'"
            for i, blob in zip(node.top_ids, node.tops):
                if not bool(blob.tensor().isfinite().all()):
                    return f"the first bad values are in blob '{self.wiring.names[i]}' of layer '{node.name}'"
        return "no blob holds bad values when computed again"

    # ---- one node

    def _call(self, moment, node):
        for call in self.callbacks[moment]:
            call(node.index)

    @staticmethod
    def _guarded(node, work, *given):
        try:
            work(node, *given)
        except Exception as e:
            note_layer(e, node)
            raise

    def _forward(self, node, last, without):
        """Run the node forward; the later ones that it has done the work of."""
        chain = self.chains.get(node.index)
        followers = chains.usable(chain, last, without) if chain and not self.watched else []
        for each in (node, *followers):
            self._guarded(each, Node.reshape)
        self._guarded(node, self._forward_layer, followers)
        for each in (node, *followers):
            each.settle()
        return followers

    @staticmethod
    def _forward_layer(node, followers):
        if followers:
            chains.forward(node, followers)
        else:
            node.layer.forward(node.bottoms, node.tops)

    @staticmethod
    def _look_again(node, written):
        """Where the forward pass was of other values, or users may have written some, take those in the blobs.
        `written`: the storages that were before this pass; a view of another blob is in its storage."""
        for i, (blob, shape) in enumerate(zip(node.bottoms, node.reshaped_for)):
            if blob.shape != shape:
                raise CaffeError(
                    f"layer '{node.name}': bottom '{node.param.bottom[i]}' has shape {blob.shape}, but the net was "
                    f"made for {shape}; call net.reshape() or net.forward() before backward"
                )
        blobs = (*node.bottoms, *node.tops) if written else ()
        other = any(blob.memory.storage in written for blob in blobs)
        if node.duty.rereads or not node.fresh or other or node.written():
            node.builtin.remember(node.bottoms, node.tops)

    @staticmethod
    def _missed(node):
        """A frugal net computes gradients of what its layers have kept: no written values can count."""
        for name, blob in zip((*node.param.bottom, *node.param.top), (*node.bottoms, *node.tops)):
            if blob.memory.missed:
                raise CaffeError(
                    f"layer '{node.name}': blob '{name}' was asked for between forward and backward, after this frugal "
                    "net had given it up: it reads as zero, and what is written counts for nothing; look at the blob "
                    "before the forward pass, or make a net without frugal()"
                )

    @staticmethod
    def _backward_layer(node):
        kind, wanted = node.builtin, node.duty.bottoms
        if not kind.differentiable and any(wanted):
            kind.fail("has no backward; leave out force_backward, or give it propagate_down: false")
        if kind.gradient_checked and any(wanted[k] for k in kind.no_gradient if k < len(wanted)):
            kind.fail(f"{node.type} Layer cannot backpropagate to label inputs.")
        node.layer.backward(node.tops, wanted, node.bottoms)

    @staticmethod
    def _release_diffs(node):
        """Give up the diffs that have served."""
        if not node.bottoms:
            return  # the diff of a Parameter layer's top is its parameter's
        for i, blob, weight in zip(node.top_ids, node.tops, node.loss_weights):
            if not weight and i not in node.bottom_ids:
                blob.grad.release()
