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
    for source, told in _misfits(state, rule):
        log.info(source, f"The NetState {told} specified by a rule in layer {layer_name}")
        return False
    return True


def _misfits(state, rule):
    if rule.HasField("phase") and rule.phase != state.phase:
        yield "net.cpp:296", f"phase ({state.phase}) differed from the phase ({rule.phase})"
    if rule.HasField("min_level") and state.level < rule.min_level:
        yield "net.cpp:306", f"level ({state.level}) is above the min_level ({rule.min_level})"
    if rule.HasField("max_level") and state.level > rule.max_level:
        yield "net.cpp:316", f"level ({state.level}) is above the max_level ({rule.max_level})"
    for stage in rule.stage:
        if stage not in state.stage:
            yield "net.cpp:332", f"did not contain stage '{stage}'"
    for stage in rule.not_stage:
        if stage in state.stage:
            yield "net.cpp:346", f"contained a not_stage '{stage}'"
