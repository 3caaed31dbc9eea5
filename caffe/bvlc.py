"""What BVLC Caffe would do with the same net, told where it differs from what happens here, or surprises."""

from caffe import glog


def refuses(layer, what) -> None:
    """Warn that `what` is computed here, but BVLC Caffe would not take a net with it."""
    tell(layer, f"BVLC Caffe refuses this: {what}")


def tell(layer, text) -> None:
    """Warn of `layer`, an object or its LayerParameter."""
    glog.warning(glog.here(), f"layer '{layer.name}' ({layer.type}): {text}")
