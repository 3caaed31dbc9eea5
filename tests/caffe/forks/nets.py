"""Small nets in the words of Caffe's forks, for tests: deploy versions, and versions that learn where layers do."""

XAVIER = "weight_filler { type: 'xavier' } bias_filler { type: 'gaussian' std: 0.1 }"


def layer(kind, name, bottoms, text="", tops=None):
    blobs = [f"bottom: '{b}'" for b in bottoms.split()] + [f"top: '{t}'" for t in (tops or name).split()]
    return f"layer {{ name: '{name}' type: '{kind}' {' '.join(blobs)} {text} }}\n"


def data(name, *shape):
    dims = " ".join(f"dim: {n}" for n in shape)
    return layer("Input", name, "", f"input_param {{ shape {{ {dims} }} }}")


def conv(name, bottom, outputs, kernel=3, more="", kind="Convolution"):
    pad = kernel // 2
    return layer(
        kind,
        name,
        bottom,
        f"convolution_param {{ num_output: {outputs} kernel_size: {kernel} pad: {pad} {more} {XAVIER} }}",
    )


def relu(bottom, kind="ReLU"):
    return layer(kind, f"relu_{bottom}", bottom, tops=bottom)


def pool(name, bottom, more="kernel_size: 2 stride: 2", tops=None):
    return layer("Pooling", name, bottom, f"pooling_param {{ {more} }}", tops)


def _head(source, classes, priors, size):
    """SSD's three layers on a map, and their Permute and Flatten."""
    text = layer(
        "PriorBox",
        f"{source}_priorbox",
        f"{source} data",
        f"prior_box_param {{ min_size: {size} max_size: {size + 6} aspect_ratio: 2 flip: true clip: false "
        "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 offset: 0.5 }",
    )
    for what, count in (("loc", 4), ("conf", classes)):
        name = f"{source}_{what}"
        text += conv(name, source, priors * count)
        text += layer("Permute", f"{name}_perm", name, "permute_param { order: 0 order: 2 order: 3 order: 1 }")
        text += layer("Flatten", f"{name}_flat", f"{name}_perm", "flatten_param { axis: 1 }")
    return text


def _heads(sources, classes=3, loss=False):
    text = "".join(_head(source, classes, 4, size) for source, size in sources)
    for what, kind, axis in (("loc", "flat", 1), ("conf", "flat", 1), ("priorbox", "", 2)):
        bottoms = " ".join(f"{s}_{what}" + (f"_{kind}" if kind else "") for s, _ in sources)
        text += layer("Concat", f"mbox_{what}", bottoms, f"concat_param {{ axis: {axis} }}")
    if loss:
        return text + layer(
            "MultiBoxLoss",
            "mbox_loss",
            "mbox_loc mbox_conf mbox_priorbox label",
            f"multibox_loss_param {{ num_classes: {classes} code_type: CENTER_SIZE }} propagate_down: "
            "[true, true, false, false]",
        )
    text += layer("Reshape", "conf_rows", "mbox_conf", f"reshape_param {{ shape {{ dim: 0 dim: -1 dim: {classes} }} }}")
    text += layer("Softmax", "conf_softmax", "conf_rows", "softmax_param { axis: 2 }")
    text += layer("Flatten", "conf_flat", "conf_softmax", "flatten_param { axis: 1 }")
    return text + layer(
        "DetectionOutput",
        "detection_out",
        "mbox_loc conf_flat mbox_priorbox",
        f"detection_output_param {{ num_classes: {classes} share_location: true background_label_id: 0 "
        "nms_param { nms_threshold: 0.45 top_k: 40 } code_type: CENTER_SIZE keep_top_k: 20 "
        "confidence_threshold: 0.3 }",
    )


def ssd_vgg(loss=False):
    inputs = data("data", 1, 3, 32, 32) + (data("label", 1, 1, 2, 8) if loss else "")
    text = inputs + conv("conv1", "data", 6) + relu("conv1") + pool("pool1", "conv1")
    text += conv("conv2", "pool1", 8) + relu("conv2")
    norm = "norm_param { across_spatial: false scale_filler { value: 2 } channel_shared: false }"
    text += layer("Normalize", "conv2_norm", "conv2", norm) + pool("pool2", "conv2")
    text += conv("conv3", "pool2", 8, more="dilation: 1 stride: 2") + relu("conv3")
    return text + _heads([("conv2_norm", 8), ("conv3", 16)], loss=loss)


def ssd_mobilenet(loss=False):
    inputs = data("data", 1, 3, 32, 32) + (data("label", 1, 1, 2, 8) if loss else "")
    text = inputs + conv("conv0", "data", 6, more="stride: 2") + relu("conv0", "ReLU6")
    text += conv("dw1", "conv0", 6, more="group: 6 stride: 2", kind="ConvolutionDepthwise") + relu("dw1", "ReLU6")
    text += conv("pw1", "dw1", 8, 1) + relu("pw1")
    text += conv("dw2", "pw1", 8, more="group: 8 stride: 2", kind="DepthwiseConvolution") + relu("dw2")
    return text + _heads([("pw1", 10), ("dw2", 18)], loss=loss)


def _rois(count):
    return data("rois", count, 5)


def faster_rcnn(loss=False):
    text = data("data", 1, 3, 32, 32) + _rois(4) + conv("conv1", "data", 6) + relu("conv1") + pool("pool1", "conv1")
    text += layer(
        "ROIPooling", "roi_pool", "pool1 rois", "roi_pooling_param { pooled_h: 3 pooled_w: 3 spatial_scale: 0.5 }"
    )
    text += layer("InnerProduct", "cls", "roi_pool", f"inner_product_param {{ num_output: 3 {XAVIER} }}")
    if not loss:
        return text + layer("Softmax", "cls_prob", "cls")
    text += data("targets", 4, 8) + data("inside", 4, 8) + data("outside", 4, 8)
    text += layer("InnerProduct", "bbox", "roi_pool", f"inner_product_param {{ num_output: 8 {XAVIER} }}")
    text += layer(
        "SmoothL1Loss", "loss_bbox", "bbox targets inside outside", "loss_weight: 1 smooth_l1_loss_param { sigma: 3.0 }"
    )
    return _learns(text, "cls", (4,))


def rpn():
    text = (
        data("data", 1, 3, 32, 48) + data("im_info", 1, 3) + conv("conv1", "data", 6, more="stride: 2") + relu("conv1")
    )
    text += pool("pool1", "conv1", "kernel_size: 4 stride: 4")
    text += conv("score", "pool1", 12, 1) + conv("bbox", "pool1", 24, 1)
    text += layer("Reshape", "two", "score", "reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 0 } }")
    text += layer("Softmax", "prob2", "two")
    text += layer("Reshape", "prob", "prob2", "reshape_param { shape { dim: 0 dim: 12 dim: -1 dim: 0 } }")
    own = "feat_stride: 8 base_size: 8 min_size: 0 ratio: 0.5 ratio: 1 ratio: 2 scale: 1 scale: 2 "
    return text + layer(
        "Proposal",
        "proposal",
        "prob bbox im_info",
        f"proposal_param {{ {own} pre_nms_topn: 40 post_nms_topn: 6 nms_thresh: 0.7 }}",
    )


def faster_rcnn_deploy():
    """The region proposal net and the classifier on its regions, whose number is known only when it runs."""
    text = rpn() + layer(
        "ROIPooling", "roi_pool", "pool1 proposal", "roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.125 }"
    )
    text += layer("InnerProduct", "cls", "roi_pool", f"inner_product_param {{ num_output: 3 {XAVIER} }}")
    return text + layer("Softmax", "cls_prob", "cls")


def rfcn_deploy():
    """R-FCN whole: proposals, position-sensitive scores and codes of each, their means."""
    text = rpn()
    for what, count in (("cls", 3), ("bbox", 8)):
        text += conv(f"{what}_maps", "conv1", 4 * count, 1)
        own = f"psroi_pooling_param {{ spatial_scale: 0.5 output_dim: {count} group_size: 2 }}"
        text += layer("PSROIPooling", f"psroi_{what}", f"{what}_maps proposal", own)
        text += pool(f"ave_{what}", f"psroi_{what}", "pool: AVE kernel_size: 2 stride: 2")
    text += layer("Softmax", "prob_ave", "ave_cls")
    text += layer("Reshape", "cls_prob", "prob_ave", "reshape_param { shape { dim: -1 dim: 3 } }")
    return text + layer("Reshape", "bbox_pred", "ave_bbox", "reshape_param { shape { dim: -1 dim: 8 } }")


def rfcn(loss=False):
    text = (
        data("data", 1, 3, 32, 32) + _rois(4) + conv("conv1", "data", 6) + relu("conv1") + conv("maps", "conv1", 12, 1)
    )
    text += layer(
        "PSROIPooling", "psroi", "maps rois", "psroi_pooling_param { spatial_scale: 1 output_dim: 3 group_size: 2 }"
    )
    text += pool("ave", "psroi", "pool: AVE kernel_size: 2 stride: 2")
    return _learns(text, "ave", (4,)) if loss else text + layer("Softmax", "cls_prob", "ave")


def _learns(text, score, shape):
    return text + data("label", *shape) + layer("SoftmaxWithLoss", "loss", f"{score} label")


def senet(loss=False):
    text = data("data", 2 if loss else 1, 3, 12, 12) + conv("x", "data", 6) + relu("x") + conv("y", "x", 6)
    text += pool("squeeze", "y", "pool: AVE global_pooling: true") + conv("down", "squeeze", 3, 1) + relu("down")
    text += conv("up", "down", 6, 1) + layer("Sigmoid", "gate", "up") + layer("Axpy", "se", "gate y x")
    text += layer("InnerProduct", "fc", "se", f"inner_product_param {{ num_output: 4 {XAVIER} }}")
    return _learns(text, "fc", (2,)) if loss else text


def shufflenet(loss=False):
    text = data("data", 2, 3, 12, 12) + conv("c1", "data", 6, more="stride: 2") + relu("c1")
    text += conv("g1", "c1", 12, 1, more="group: 3") + relu("g1")
    text += layer("ShuffleChannel", "shuffle", "g1", "shuffle_channel_param { group: 3 }")
    text += conv("dw", "shuffle", 12, more="group: 12", kind="DepthwiseConvolution") + conv(
        "g2", "dw", 6, 1, "group: 3"
    )
    text += layer("Eltwise", "sum", "g2 c1") + relu("sum") + pool("global", "sum", "pool: AVE global_pooling: true")
    text += layer("InnerProduct", "fc", "global", f"inner_product_param {{ num_output: 4 {XAVIER} }}")
    return _learns(text, "fc", (2,)) if loss else text


def segnet(loss=False):
    mode = "LEARN" if loss else "INFERENCE"
    own = f"bn_param {{ scale_filler {{ value: 1 }} shift_filler {{ value: 0.001 }} bn_mode: {mode} }}"
    text = data("data", 1, 3, 12, 16) + conv("c1", "data", 6) + layer("BN", "bn1", "c1", own, "c1") + relu("c1")
    text += pool("p1", "c1", tops="p1 mask1") + conv("c2", "p1", 6) + relu("c2") + pool("p2", "c2", tops="p2 mask2")
    text += layer("Upsample", "u2", "p2 mask2", "upsample_param { scale: 2 }") + conv("d2", "u2", 6)
    text += layer("Upsample", "u1", "d2 mask1", "upsample_param { scale: 2 upsample_h: 12 upsample_w: 16 }")
    text += conv("score", "u1", 4)
    return _learns(text, "score", (1, 12, 16)) if loss else text


def _enet_bottleneck(name, bottom, channels, middle, drop=0.1):
    """ENet's: 1 x 1, the convolution `middle`, 1 x 1, dropout of whole channels, and the sum with the bottom."""

    def bn(top):
        own = "bn_param { scale_filler { value: 1 } shift_filler { value: 0.001 } }"
        return layer("BN", f"bn_{top}", top, own, top) + layer("PReLU", f"prelu_{top}", top, tops=top)

    text = conv(f"{name}_0", bottom, 4, 1, "bias_term: false") + bn(f"{name}_0")
    text += layer(
        "Convolution", f"{name}_1", f"{name}_0", f"convolution_param {{ num_output: 4 {middle} {XAVIER} }}"
    ) + bn(f"{name}_1")
    text += conv(f"{name}_2", f"{name}_1", channels, 1, "bias_term: false")
    text += layer("SpatialDropout", f"{name}_drop", f"{name}_2", f"spatial_dropout_param {{ dropout_ratio: {drop} }}")
    return text + layer("Eltwise", name, f"{bottom} {name}_drop") + layer("PReLU", f"{name}_prelu", name, tops=name)


def enet(loss=False):
    text = data("data", 2, 3, 24, 32) + conv("conv0", "data", 5, more="stride: 2") + pool("pool0", "data")
    text += layer("Concat", "block0", "conv0 pool0") + conv("wide", "block0", 8, 1)
    text += pool("pool1", "wide", tops="pool1 mask1")
    text += _enet_bottleneck("b1", "pool1", 8, "kernel_size: 3 pad: 1", 0.01)
    text += _enet_bottleneck("b2", "b1", 8, "kernel_size: 3 pad: 2 dilation: 2")
    text += _enet_bottleneck("b3", "b2", 8, "kernel_h: 5 kernel_w: 1 pad_h: 2 pad_w: 0")
    text += _enet_bottleneck("b4", "b3", 8, "kernel_h: 1 kernel_w: 5 pad_h: 0 pad_w: 2")
    text += layer("Upsample", "up", "b4 mask1", "upsample_param { scale: 2 }")
    text += layer(
        "Deconvolution", "score", "up", f"convolution_param {{ num_output: 4 kernel_size: 2 stride: 2 {XAVIER} }}"
    )
    return _learns(text, "score", (2, 24, 32)) if loss else text


def pspnet(loss=False, bn=True):
    own = "bn_param { slope_filler { value: 1 } bias_filler { value: 0 } momentum: 0.9 frozen: false }"
    text = data("data", 1, 3, 17, 17) + conv("c1", "data", 6, more="stride: 2")
    text += (layer("BN", "bn1", "c1", own, "c1") if bn else "") + relu("c1")
    for size in (1, 3):
        text += pool(f"p{size}", "c1", f"pool: AVE kernel_size: {9 // size} stride: {9 // size}")
        text += conv(f"c_p{size}", f"p{size}", 3, 1) + relu(f"c_p{size}")
        text += layer("Interp", f"i{size}", f"c_p{size}", "interp_param { height: 9 width: 9 }")
    text += layer("Concat", "all", "c1 i1 i3") + conv("score9", "all", 4, 1)
    text += layer("Interp", "score", "score9", "interp_param { zoom_factor: 2 }")
    return _learns(text, "score", (1, 17, 17)) if loss else text


def yolo():
    text = data("data", 1, 3, 16, 16) + conv("c1", "data", 8) + relu("c1")
    return text + layer("Reorg", "reorg", "c1", "reorg_param { stride: 2 }") + conv("out", "reorg", 4, 1)


def lenet():
    text = data("data", 2, 1, 14, 14) + conv("c1", "data", 6) + pool("p1", "c1", "kernel_size: 3 stride: 2")
    text += layer("LRN", "n1", "p1", "lrn_param { local_size: 3 alpha: 0.5 }")
    text += layer("InnerProduct", "ip1", "n1", f"inner_product_param {{ num_output: 8 {XAVIER} }}") + relu("ip1")
    text += layer("InnerProduct", "ip2", "ip1", f"inner_product_param {{ num_output: 5 {XAVIER} }}")
    return text + layer("Softmax", "prob", "ip2")


def resnet():
    text = data("data", 1, 3, 12, 12) + conv("c1", "data", 6) + layer("BatchNorm", "bn1", "c1", tops="c1")
    text += layer("Scale", "s1", "c1", "scale_param { bias_term: true filler { value: 2 } }", "c1") + relu("c1")
    text += conv("c2", "c1", 6) + layer("Eltwise", "sum", "c1 c2") + layer("PReLU", "prelu", "sum")
    text += pool("p", "prelu", "kernel_size: 3 stride: 2 ceil_mode: false")
    return text + pool("global", "p", "pool: AVE global_pooling: true")


def fcn():
    text = data("data", 1, 3, 16, 16) + conv("c1", "data", 6, more="stride: 2") + layer("ELU", "e1", "c1")
    text += layer(
        "Deconvolution", "up", "e1", f"convolution_param {{ num_output: 4 kernel_size: 4 stride: 2 {XAVIER} }}"
    )
    return text + layer("Crop", "score", "up data", "crop_param { axis: 2 offset: 1 }")


TRAINED = {f.__name__: f for f in (ssd_vgg, ssd_mobilenet, faster_rcnn, rfcn, senet, shufflenet, segnet, enet, pspnet)}
DEPLOY = TRAINED | {f.__name__: f for f in (faster_rcnn_deploy, rfcn_deploy, rpn, yolo, lenet, resnet, fcn)}
