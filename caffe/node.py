"""Node: what a net knows of one of its layers; Wiring: the nodes of a net and the blobs between them."""

from bisect import bisect
from dataclasses import dataclass, field

from caffe.blob import Blob, Memory
from caffe.builtin_layer import BuiltinLayer, Duty
from caffe.layer import Layer
from caffe.proto import caffe_pb2
from caffe.random import Stream


@dataclass(eq=False)
class Node:
    """A layer in its place. A blob's id is its number in the net's `blobs`."""

    index: int
    param: caffe_pb2.LayerParameter
    layer: Layer
    stream: Stream  # the layer's random numbers
    bottoms: list[Blob] = field(default_factory=list)
    tops: list[Blob] = field(default_factory=list)
    bottom_ids: list[int] = field(default_factory=list)
    top_ids: list[int] = field(default_factory=list)
    in_place: bool = False  # a top is a bottom
    param_ids: list[int] = field(default_factory=list)  # of the layer's blobs: their numbers in the net's `learned`
    loss_weights: list[float] = field(default_factory=list)  # of the tops
    duty: Duty = field(default_factory=Duty)
    last_reads: list[Blob] = field(default_factory=list)  # blobs that no later layer reads
    reshaped_for: list[tuple] = field(default_factory=list)  # shapes of the bottoms at the last reshape
    fresh: bool = False  # no forward pass has changed the bottoms since the layer's own
    marks: list = field(default_factory=list)  # of the memories of bottoms and tops at that time

    def __post_init__(self):
        self.name, self.type = self.param.name, self.param.type
        # The layer where it is of a built-in type, else one that knows nothing special: users' names are free.
        self.builtin = self.layer if isinstance(self.layer, BuiltinLayer) else _PLAIN

    def reads_back(self, keeps_sign: bool) -> bool:
        """Whether Caffe's backward of this layer goes by what is written in place over its top, signs kept or not."""
        kind = self.builtin
        reads = kind.reads_top or (kind.reads_bottom and self.in_place)
        return self.duty.backward and reads and not (kind.reads_sign and keeps_sign)

    def seed(self):
        """Tell a user's layer that wants it the number that its randomness follows from."""
        if not isinstance(self.layer, BuiltinLayer) and hasattr(self.layer, "__caffe_seed__"):
            self.layer.__caffe_seed__(self.stream.fixed("clips").initial_seed())  # the word that runs began with

    def seek(self, batch):
        """Let a data layer that can go on with batch number `batch`, from 0."""
        self.seed()
        if isinstance(self.layer, BuiltinLayer):
            self.layer.seek(batch)
        elif hasattr(self.layer, "__caffe_seek__"):
            self.layer.__caffe_seek__(batch)

    def reshape(self):
        """Let the layer set its tops' shapes, and fill the diffs of tops with a loss weight."""
        self.layer.reshape(self.bottoms, self.tops)
        self.reshaped_for = [b.shape for b in self.bottoms]
        self.fill_loss_weights()

    def settle(self):
        """The layer's forward pass is over: note which values it was of, for `written`, where they are kept."""
        self.fresh = True
        if self.duty.backward and self.duty.keep:
            self.marks = [(blob.memory, blob.memory.mark()) for blob in (*self.bottoms, *self.tops)]

    def written(self) -> list[Memory]:
        """Memories of bottoms and tops that users may have written into since then."""
        return [memory for memory, mark in self.marks if memory.touched(mark)]

    def fill_loss_weights(self):
        """A top with a loss weight carries it in its diff; layers take their gradient's scale from there."""
        for blob, weight in zip(self.tops, self.loss_weights):
            if weight and blob.grad.is_zero:
                blob.grad.assign(blob.grad.tensor().fill_(weight))


def readers_of_blobs(nodes) -> dict[int, list[Node]]:
    """For each blob's number the nodes that have it as a bottom, in order."""
    readers: dict[int, list[Node]] = {}
    for node in nodes:
        for b in node.bottom_ids:
            readers.setdefault(b, []).append(node)
    return readers


def place_after(nodes, node) -> int:
    """Where in `nodes`, which are in order, those after `node` begin."""
    return bisect(nodes, node.index, key=lambda n: n.index)


_PLAIN = BuiltinLayer(caffe_pb2.LayerParameter())


@dataclass(eq=False)
class Learned:
    """A parameter that the net learns; the first layer that has it owns it, others may share it."""

    blob: Blob
    lr_mult: float | None = None  # None: 1, until a layer that shares it says otherwise
    decay_mult: float | None = None


@dataclass(eq=False)
class Wiring:
    """A net as it is built: nodes in the order of their layers, and the blobs by number and name."""

    param: caffe_pb2.NetParameter  # with the Split layers that were put in
    nodes: list[Node] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)  # name -> number
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    learned: list[Learned] = field(default_factory=list)

    def clear_param_diffs(self):
        """Set the diffs of all learned parameters to zero (they add up over backward passes)."""
        for learned in self.learned:
            learned.blob.grad.zero()

    def by_name(self) -> dict[str, Node]:
        """The nodes by the names of their layers; of several with one name the first, as in Caffe."""
        return {node.name: node for node in reversed(self.nodes)}

    def add_blob(self, name) -> int:
        """Make an empty blob; its number."""
        self.ids[name] = len(self.blobs)
        self.names.append(name)
        self.blobs.append(Blob())
        return self.ids[name]
