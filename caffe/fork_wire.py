"""Binary files of forks: the same number stands for different fields there, and the layer's type tells for which.

A layer of a type named here has its parameters' field under the number of some fork; before the file is parsed the
number is changed to the one that caffe.proto gives the field. Forks whose message differs are left out: a layer built
from what they wrote then says what it misses.
"""

from caffe import wire_format
from caffe.proto import caffe_pb2
from caffe.wire_format import BYTES

# message type: (field, numbers in the forks). SSD, its descendants, OpenCV, SegNet, YOLO, ...
NUMBERS = {
    "ROIPooling": ("roi_pooling_param", (154, 150, 143, 204, 208)),
    "SmoothL1Loss": ("smooth_l1_loss_param", (148, 209)),
    "PSROIPooling": ("psroi_pooling_param", (10002, 153, 220, 207)),
    "BoxAnnotatorOHEM": ("box_annotator_ohem_param", (152,)),
    "Permute": ("permute_param", (154, 224, 148)),
    "PriorBox": ("prior_box_param", (212, 150)),
    "DetectionOutput": ("detection_output_param", (211, 147)),
    "Normalize": ("norm_param", (204, 149)),
    "Interp": ("interp_param", (143, 166, 217, 301)),
    "BN": ("bn_param", (45, 137)),
    "Upsample": ("upsample_param", (137, 150, 149, 177)),
    "ShuffleChannel": ("shuffle_channel_param", (166, 159)),
    "ReLU6": ("relu6_param", (211, 216)),
    "Reorg": ("reorg_param", (159, 147, 149, 303, 155)),
    "CenterLoss": ("center_loss_param", (147,)),
    "Proposal": ("proposal_param", (201,)),
    "Transpose": ("transpose_param", (142, 145)),
    "Reverse": ("reverse_param", (143, 147)),
}
# (type, number): the fields inside the message that have other numbers there
INSIDE = {("BN", 45): {1: 11, 2: 12, 3: 13}, ("ReLU6", 216): {1: 2}, ("Reorg", 155): {1: 2, 2: 1}}
LAYER, TYPE = 100, 2  # numbers in NetParameter and LayerParameter


def renumbered(data: bytes) -> bytes:
    """The binary NetParameter `data` with the parameters of forks' layers under caffe.proto's numbers."""
    try:
        new = _rebuilt(memoryview(data), lambda number, content: _layer(content) if number == LAYER else None)
        return new if isinstance(new, bytes) else data
    except ValueError:
        return data  # cut short: the parser will say so


def _layer(content):
    if content is None:
        return None
    kind = next((str(value, "utf-8") for number, value in _fields(content) if number == TYPE), "")
    field, numbers = NUMBERS.get(kind, (None, ()))
    if field is None or all(number not in numbers for number, _ in _fields(content)):
        return None
    ours = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[field].number

    def change(number, value):
        if number not in numbers or value is None:
            return None
        inner = INSIDE.get((kind, number), {})
        return ours, _rebuilt(value, lambda n, v: (inner[n], v) if n in inner else None)

    return _rebuilt(content, change)


def _rebuilt(data, change):
    """`data` with each field as `change(number, content)` says: None (as it is), new content, or (number, content).
    The content of what is no message, string or packed field is None."""
    parts, kept = [], 0
    for number, kind, begin, at, end in wire_format.fields(data):
        new = change(number, data[at:end] if kind == BYTES else None)
        if new is None:
            continue
        number, content = new if isinstance(new, tuple) else (number, new)
        if content is None:  # a number, not a message: only its field's number changes
            head, content = wire_format.written(number << 3 | kind), data[at:end]
        else:
            head = wire_format.head(number, content)
        parts += [data[kept:begin], head, content]
        kept = end
    return b"".join([*parts, data[kept:]]) if parts else data


def _fields(data):
    return [(number, data[at:end]) for number, kind, _, at, end in wire_format.fields(data) if kind == BYTES]
