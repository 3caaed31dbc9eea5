"""Which layers a net keeps: include and exclude rules against phase, level and stages (Caffe: Net::FilterNet)."""

from caffe import glog as log
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2


def filter_net(net):
    """A copy of NetParameter `net` with the layers whose rules fit `net.state`."""
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    del result.layer[:]
    for layer in net.layer:
        if layer.include and layer.exclude:
            raise CaffeError(f"Specify either include rules or exclude rules; not both. (layer '{layer.name}')")
        if layer.include:
            keep = any(state_meets_rule(net.state, rule, layer.name) for rule in layer.include)
        else:
            keep = not any(state_meets_rule(net.state, rule, layer.name) for rule in layer.exclude)
        if keep:
            result.layer.add().CopyFrom(layer)
    return result


def state_meets_rule(state, rule, layer_name) -> bool:
    """Does NetState `state` fit NetStateRule `rule`?"""
    if rule.HasField("phase") and rule.phase != state.phase:
        log.info(
            "net.cpp:296",
            f"The NetState phase ({state.phase}) differed from the phase ({rule.phase}) "
            f"specified by a rule in layer {layer_name}",
        )
        return False
    if rule.HasField("min_level") and state.level < rule.min_level:
        log.info(
            "net.cpp:306",
            f"The NetState level ({state.level}) is above the min_level ({rule.min_level}) "
            f"specified by a rule in layer {layer_name}",
        )
        return False
    if rule.HasField("max_level") and state.level > rule.max_level:
        log.info(
            "net.cpp:316",
            f"The NetState level ({state.level}) is above the max_level ({rule.max_level}) "
            f"specified by a rule in layer {layer_name}",
        )
        return False
    stages = set(state.stage)
    for stage in rule.stage:
        if stage not in stages:
            log.info(
                "net.cpp:332", f"The NetState did not contain stage '{stage}' specified by a rule in layer {layer_name}"
            )
            return False
    for stage in rule.not_stage:
        if stage in stages:
            log.info(
                "net.cpp:346", f"The NetState contained a not_stage '{stage}' specified by a rule in layer {layer_name}"
            )
            return False
    return True
