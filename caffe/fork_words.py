"""What forks of Caffe write in a prototxt for things that BVLC Caffe can say: the text is changed to its words.

Only text: in binary files `ceil_mode: true` has the number of `round_mode: FLOOR`, its very opposite, so the number is
read as BVLC Caffe's.
"""

ENGINES = ("engine", "conv_algos_override")
ROUNDING = dict.fromkeys(("true", "True", "t", "1"), "CEIL") | dict.fromkeys(("false", "False", "f", "0"), "FLOOR")


def in_our_words(message, field, value):
    """What the unknown `field` of `message` says in Caffe's words, its `value` being text ("true", '"a string"'; None
    for a block); "" where that is nothing; None: not sure."""
    if (field in ENGINES or field.startswith("cudnn_")) and value is not None:
        return ""  # by which library, and how, a layer is computed; there is one here
    if (message, field) == ("PoolingParameter", "ceil_mode") and value in ROUNDING:
        return f"round_mode: {ROUNDING[value]}"
    if (message, field) == ("PythonParameter", "param_str_") and value is not None:
        return f"param_str: {value}"
    if (message, field) == ("ConvolutionParameter", "hole") and value is not None:
        return f"dilation: {value}"  # DeepLab's name for the distance between a kernel's taps
    return None


SSD_NOISE = ("SSD", "this change of images is not here; leave it out to train without")
SSD_VIDEO = ("SSD", "videos are not read here; write Input layers for data and feed frames")
NVIDIA_BN = ("NVIDIA Caffe", "write the scale and bias as a layer of type Scale with bias_term: true after BatchNorm")
OHEM = ("R-FCN", "it is used in training alone; a deploy net does without")
SEGNET_DATA = ("SegNet", "write Input layers for data and label and feed them, or use an ImageData for each")
DEEPLAB_DATA = ("DeepLab, PSPNet", SEGNET_DATA[1])
SEGNET_WEIGHTS = (
    "SegNet",
    "its weights of classes are not here; leave it out to weigh all alike, or see InfogainLoss",
)
NVIDIA_PRECISION = ("NVIDIA Caffe", "leave it out to compute in float32")
DETECTNET = ("NVIDIA Caffe", "DetectNet's data layer is not here; write Input layers for its tops")
YOLO_REGION = ("YOLO", "leave it out; for detection decode its bottom in a script")
CRNN_LOSS = ("CRNN", "for inference leave it out; to train, declare it with @caffe.layer (torch has a ctc_loss)")
OWN_TYPE = "declare the type with @caffe.layer, or put a Python layer in its place (docs/EXTENDING.md)"
MEANFIELD = (
    "CRF-RNN",
    "its conditional random field is not here; without the layer its first bottom is the net's answer",
)
MARGIN = ("SphereFace", f"a deploy net does without; to train, {OWN_TYPE}")
SEG_ACCURACY = ("DeepLab", "leave it out, or see Accuracy, with ignore_label in accuracy_param")
MAT_FILES = ("DeepLab", "leave it out, and write the blob's array from a script")

UNPOOLING = ("DeconvNet", f"see Upsample, which puts values where the mask of a Pooling says; else {OWN_TYPE}")
FLOWNET = ("FlowNet", OWN_TYPE)
CPM_DATA = ("OpenPose", SEGNET_DATA[1])

# (message, field): the fork that it comes from, what to do.
FIELDS = {
    ("PoolingParameter", "ceil_mode"): ("OpenCV and others", "ceil_mode: true is round_mode: CEIL, false is FLOOR"),
    ("TransformationParameter", "noise_param"): SSD_NOISE,
    **{("BatchNormParameter", name): NVIDIA_BN for name in ("scale_filler", "bias_filler", "scale_bias")},
    ("LayerParameter", "video_data_param"): SSD_VIDEO,
    ("ConvolutionParameter", "hole"): ("DeepLab", "the distance between a kernel's taps: it is dilation"),
    **{
        ("ConvolutionParameter", name): ("DeepLab", "write dilation twice in its place: of height, then of width")
        for name in ("hole_h", "hole_w")
    },
    **{("LossParameter", name): SEGNET_WEIGHTS for name in ("weight_by_label_freqs", "class_weighting")},
    ("LossParameter", "pre_fixed_normalizer"): OHEM,
    **{
        ("NetParameter", name): NVIDIA_PRECISION
        for name in ("default_forward_type", "default_backward_type", "default_forward_math", "default_backward_math")
    },
    **{
        ("LayerParameter", name): NVIDIA_PRECISION
        for name in ("forward_type", "backward_type", "forward_math", "backward_math")
    },
    ("SolverParameter", "solver_data_type"): NVIDIA_PRECISION,
    ("LayerParameter", "dense_image_data_param"): SEGNET_DATA,
    ("ImageDataParameter", "label_type"): DEEPLAB_DATA,
    ("LayerParameter", "region_param"): YOLO_REGION,
    ("LayerParameter", "multi_stage_meanfield_param"): MEANFIELD,
    ("LayerParameter", "unpooling_param"): UNPOOLING,
    **{
        ("LayerParameter", f"{name}_param"): FLOWNET
        for name in ("correlation", "resample", "l1_loss", "augmentation", "coeff_schedule")
    },
    **{("LayerParameter", name): CPM_DATA for name in ("cpmdata_param", "cpm_transform_param")},
    ("LayerParameter", "margin_inner_product_param"): MARGIN,
    **{
        (message, f"{name}_param"): advice
        for message in ("LayerParameter", "V1LayerParameter")
        for name, advice in (("seg_accuracy", SEG_ACCURACY), ("mat_read", MAT_FILES), ("mat_write", MAT_FILES))
    },
    ("V1LayerParameter", "strict_dim"): ("DeepLab", "leave it out: a data layer's sizes may change here"),
    ("LayerParameter", "detectnet_groundtruth_param"): DETECTNET,
    ("CenterLossParameter", "distance_type"): ("caffe-windows", "leave it out if it asks for the L2 distance"),
    **{
        ("PriorBoxParameter", name): ("OpenCV", "leave it out; write offset, or make the boxes' array an Input")
        for name in ("offset_h", "offset_w", "width", "height")
    },
}
# layer type: the fork that it comes from, what to do.
TYPES = {
    "VideoData": SSD_VIDEO,
    "SmoothL1LossOHEM": OHEM,
    "SoftmaxWithLossOHEM": OHEM,
    "DenseImageData": SEGNET_DATA,
    "ImageSegData": DEEPLAB_DATA,
    "Lstm": ("CTPN", f"it is not BVLC Caffe's LSTM, and its weights do not fit there; {OWN_TYPE}"),
    "DetectNetTransformation": DETECTNET,
    **dict.fromkeys(("Region", "RegionLoss", "YoloDetectionOutput", "Yolov3DetectionOutput"), YOLO_REGION),
    **dict.fromkeys(("WarpCTC", "CTCLoss", "LabelsequenceAccuracy"), CRNN_LOSS),
    "ContinuationIndicator": ("CRNN", "write an Input layer and feed 0 at the first step of a sequence, 1 at others"),
    "SegAccuracy": SEG_ACCURACY,
    **dict.fromkeys(("MatRead", "MatWrite"), MAT_FILES),
    "MultiStageMeanfield": MEANFIELD,
    **dict.fromkeys(("Correlation", "FlowWarp", "Resample", "L1Loss", "ChannelNorm", "Downsample"), FLOWNET),
    **dict.fromkeys(("DataAugmentation", "FlowAugmentation", "GenerateAugmentationParameters", "CustomData"), FLOWNET),
    "CPMData": CPM_DATA,
    "Unpooling": UNPOOLING,
    "MarginInnerProduct": MARGIN,
}
# module of a Python layer: what to write where it cannot be had
PYTHON_LAYERS = {
    "rpn.proposal_layer": (
        'write type: "Proposal" with proposal_param { feat_stride: 16 ratio: 0.5 ratio: 1 ratio: 2 scale: 8 scale: 16 '
        "scale: 32 }, which computes what Faster R-CNN's Python layer does in phase TEST"
    ),
}
