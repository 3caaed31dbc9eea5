"""BuiltinLayer: what the layer types that come with this package have in common, and what a net asks of a layer."""

from dataclasses import dataclass, field
from typing import Any, NoReturn

from caffe.errors import CaffeError
from caffe.layer import Count, Layer


@dataclass(slots=True)
class Duty:
    """What a net asks of a layer in its passes; the net changes it, and a built-in layer goes by it."""

    backward: bool = True  # a backward pass may follow the forward pass
    bottoms: list[bool] = field(default_factory=list)  # which of the bottoms' gradients it has to give
    params: list[bool] = field(default_factory=list)  # and which of its parameters'
    keep: bool = True  # keep what backward needs for several backward passes, and all values for users to look at
    overwrite: bool = False  # works in place, and nobody needs the old values
    rereads: bool = False  # backward is to go by what the blobs hold then: it reads a blob that is overwritten in place


class BuiltinLayer(Layer):
    """A layer type of this package, known by its name (`caffe.layer.register`).

    Attributes: `param` (LayerParameter), `name`, `phase` (0 TRAIN, 1 TEST), `blobs`, `duty`, and `random`, which gives
    a torch.Generator seeded for this layer and pass (`caffe.random.Stream`); None outside a net."""

    type: Any = ""
    prepared: Any = None  # caffe.prepared.Prepared: what it has made of its parameters
    num_bottom: Count = None  # exact count, or (least, most) with None for no bound; None: any
    num_top: Count = None
    auto_top = False  # losses make their own top when the prototxt names none
    is_loss = False  # the first top has loss weight 1 unless told otherwise
    differentiable = True  # False: has no backward at all (Accuracy, ArgMax)
    no_gradient: tuple[int, ...] = ()  # bottoms that never get a gradient: labels, size references
    gradient_checked = True  # no_gradient bottoms: asking for their gradient is an error (labels), else it is ignored
    by_item = False  # each item of a top is of that of the bottom alone; the same bits, however many at once
    saves_output = True  # backward reads the top's values, so they must not be overwritten in place
    no_onnx: Any = ""  # why it cannot become ONNX
    reads_top = False  # Caffe's backward reads the top's data
    reads_bottom = False  # Caffe's backward in place reads the bottom's data, which is the top's
    reads_sign = False  # and of these only which are above 0
    keeps_sign = False  # in place, what was above 0 stays there, or else gets no gradient
    # Where Caffe's backward in place writes over the top's gradient that it has yet to read: what happens here.
    spoils_diff: Any = ""
    capturable = False  # computes on the device alone, the same kernels in every pass: may be part of a CUDA graph

    def __init__(self, param):
        self.param = param
        self.phase = param.phase
        self.name = param.name
        self.duty = Duty()
        self.random: Any = None

    def forward(self, bottom, top):
        """Compute the tops' data."""

    def again(self):
        """function(*bottoms) of tensors that gives the tops' (one, or a sequence) as the last `forward` has done, for
        as long as shapes and parameters stay; None: `forward` has to run."""

    def backward(self, top, propagate_down, bottom):
        """Compute bottoms' diffs where `propagate_down`, and add to the parameters' diffs."""

    def remember(self, bottom, top):
        """Take what backward needs from the blobs as they are now, in place of what the last forward has left."""

    def seek(self, batch):
        """Let the next forward of a data layer give batch number `batch`, from 0."""

    def check_counts(self, bottom, top):
        """Fail unless this layer type takes so many bottoms and tops."""
        for what, verb, role, found, wanted in (
            ("bottom", "takes", "input", len(bottom), self.num_bottom),
            ("top", "produces", "output", len(top), self.num_top),
        ):
            if wanted is None:
                continue
            least, most = (wanted, wanted) if isinstance(wanted, int) else wanted
            if found < least or (most is not None and found > most):
                text = str(least) if least == most else f"at least {least}" if most is None else f"{least} to {most}"
                wish = f"{self.type} Layer {verb} {text} {what} blob(s) as {role}"
                raise CaffeError(f"{wish}; layer '{self.name}' has {found}.")

    def canonical_axis(self, axis, shape, what="axis"):
        """`axis` as an index 0 .. len(shape) - 1, counted from the end where negative; fails where there is none."""
        if not -len(shape) <= axis < len(shape):
            self.fail(f"{what} {axis} out of range for a {len(shape)}-D blob with shape {tuple(shape)}")
        return axis % len(shape)

    def require_planes(self, shape):
        """Fail unless a bottom of this shape is (N, C, H, W)."""
        if len(shape) != 4:
            self.fail(f"Input must have 4 axes, corresponding to (num, channels, height, width); its shape is {shape}")

    def legacy_shape(self, shape):
        """`shape` as (num, channels, height, width), with ones for missing axes (Caffe: blob.hpp)."""
        if len(shape) > 4:
            self.fail(f"Cannot use legacy accessors on Blobs with > 4 axes (shape {tuple(shape)})")
        return (*shape, *(1,) * (4 - len(shape)))

    def error(self, text) -> CaffeError:
        """The error `text`, naming this layer."""
        return CaffeError(f"layer '{self.name}' ({self.type}): {text}")

    def fail(self, text) -> NoReturn:
        """Raise the error `text`, naming this layer."""
        raise self.error(text)
