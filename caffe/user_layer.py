"""Layer types of users: `@caffe.layer("Mish")` on a class with `compute`, in any module."""

from typing import Any

from caffe.errors import CaffeError
from caffe.layer import REGISTRY, register
from caffe.python_layer import import_module


def layer(type_name, number=None, **declared):
    """Class decorator: makes a class with `compute` the layer type `type_name`; the class stays as it is.

        @caffe.layer("Mish", mish_param=dict(beta=1.0))
        class Mish:
            def compute(self, x):
                return x * torch.tanh(torch.nn.functional.softplus(self.mish_param.beta * x))

    Each layer has an object of the class, made without arguments. Its `compute` takes the bottoms' tensors and gives
    the tops'; shapes and gradients follow from it. It may have `configure(self, bottom)`, called once, and
    `top_shapes(self, *shapes)` where running `compute` on tensors without values does not tell them. It finds

        weights             tensors of the parameters, in `compute`
        add_blob            add_blob(shape, filler) makes a parameter, in `configure`
        random              random(device): a generator that repeats with the solver's seed
        name, phase, type   of the layer, and `param`, its LayerParameter
        fail                fail(text) raises a CaffeError that names the layer
        mish_param          options declared by `<name>_param=dict(...)`, defaults included (see options.declare,
                            `number` too)

    and may use these names for something else. Its class may say `num_bottom` and `num_top`, counts that the net checks
    (a number, or (least, most)), `capturable`, `is_loss`, `auto_top`, `no_gradient`, `differentiable`
    (caffe/builtin_layer.py). A subclass of TorchLayer (caffe/torch_layer.py) is taken as the layer itself.

    Declaring a type again, as a notebook does, replaces it. Raises CaffeError for a type that Caffe has, or that
    another module has declared."""
    if not isinstance(type_name, str) or not type_name:
        raise CaffeError(f'@caffe.layer wants the name of a layer type, as in @caffe.layer("Mish"), not {type_name!r}')
    if len(declared) > 1:
        raise CaffeError(f"layer type {type_name} declares {', '.join(declared)}; wanted one message of options")
    from caffe import net_build, options  # protobuf and torch, which `import caffe` does without
    from caffe.computed_layer import computed_by
    from caffe.torch_layer import TorchLayer

    def add(cls):
        if not isinstance(cls, type) or not callable(getattr(cls, "compute", None)):
            raise CaffeError(f"layer type {type_name}: {cls!r} is no class with a method compute(self, *bottoms)")
        made: Any = cls
        if not issubclass(cls, TorchLayer):
            made = computed_by(cls, type_name, declared)
        elif "capturable" not in vars(cls):
            cls.capturable = False  # its author has to know what a CUDA graph can hold
        for name, fields in declared.items():
            setattr(made, name, _options(options.declare(name, fields, number)))
            options.of_type[type_name] = name
        made.declared_in = cls.__module__, cls.__qualname__
        if getattr(REGISTRY.get(type_name), "declared_in", None) == made.declared_in:
            del REGISTRY[type_name]
        if type_name in net_build.layer_type_list():  # which knows Caffe's own, whatever was imported before
            raise CaffeError(f"Layer type {type_name} already registered; take another name")
        register(type_name)(made)
        return cls

    return add


def _options(extension):
    return property(lambda self: self.param.Extensions[extension], doc=f"the layer's {extension.name}")


def load_layers(names):
    """Import the modules `names`, which declare layer types."""
    for name in names:
        import_module(name, "--layers: ")
