"""classify: class scores of images by caffe.Classifier (Caffe: python/classify.py).

    classify images/cat.jpg scores.npy --model_def deploy.prototxt --pretrained_model net.caffemodel
    classify images/cat.jpg - --labels synset_words.txt ...      prints the five best classes instead

The input is an image, a folder of images (--ext says which) or an .npy file (images, height, width, channels). Scores
are written as .npy, (images, classes). The defaults are those of CaffeNet: images of 0..255, BGR, scaled to 256 x 256,
ten crops.
"""

import argparse
import os
import sys

import numpy as np

from caffe import program
from caffe.errors import CaffeError
from caffe.files import atomic_path
from caffe.regular import MOST_LIST, open_file, read_text
from caffe.tools import command


@program.installed
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="classify", description="Class scores of images by a net.")
    parser.add_argument("input_file", help="an image, a folder of images, or an .npy file of images")
    parser.add_argument("output_file", help=".npy file to write; - prints the best classes instead")
    parser.add_argument("--model_def", required=True, help="prototxt of the net")
    parser.add_argument("--pretrained_model", required=True, help="its weights")
    parser.add_argument("--gpu", action="store_true", help="compute on the GPU")
    parser.add_argument("--center_only", action="store_true", help="the center crop alone, not the mean over ten")
    parser.add_argument(
        "--images_dim", default="256,256", help="height,width images are scaled to (default: %(default)s)"
    )
    parser.add_argument("--mean_file", help="mean to subtract: .npy or .binaryproto (default: none)")
    parser.add_argument("--input_scale", type=float, help="multiply with this at last")
    parser.add_argument(
        "--raw_scale", type=float, default=255.0, help="multiply with this first (default: %(default)s)"
    )
    parser.add_argument("--channel_swap", default="2,1,0", help="order of channels (default: %(default)s, RGB to BGR)")
    parser.add_argument("--ext", default="jpg", help="of the images in a folder (default: %(default)s)")
    parser.add_argument("--labels", help="text file with a line a class, for the printed list")
    return command.run(classify, command.parse(parser, argv))


def classify(args):
    import caffe

    dims, swap = _numbers(args.images_dim, "--images_dim"), _numbers(args.channel_swap, "--channel_swap")
    if len(dims) != 2 or min(dims) < 1:
        raise CaffeError(f"--images_dim is {args.images_dim}; wanted height,width, such as 256,256")
    if args.gpu:
        caffe.set_mode_gpu()
    names, images = read_images(args.input_file, args.ext)
    mean = read_mean(args.mean_file) if args.mean_file else None
    try:
        net = caffe.Classifier(
            args.model_def, args.pretrained_model, dims, mean, args.input_scale, args.raw_scale, swap
        )
        scores = net.predict(images, not args.center_only)
    except ValueError as e:  # of the Transformer: what was given does not fit the net's input
        raise CaffeError(f"{args.model_def}: {e}") from e
    if args.output_file == "-":
        show(names, scores, args.labels)
        return
    with atomic_path(args.output_file) as temporary, open(temporary, "wb") as f:
        np.save(f, scores)
    print(f"Wrote {args.output_file}: scores {scores.shape} of {', '.join(names[:3])}{' ...' if names[3:] else ''}")


def read_images(path, ext):
    """(names, images (height, width, channels), float32 in 0..1) of an image, a folder or an .npy file."""
    from caffe.io import load_image

    if path.endswith(".npy"):
        images = _load(path)
        if images.ndim != 4:
            raise CaffeError(
                f"{path}: holds an array of shape {images.shape}; wanted (images, height, width, channels)"
            )
        return [f"{path}[{i}]" for i in range(len(images))], list(images.astype(np.float32))
    files = [path]
    if os.path.isdir(path):
        files = sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(f".{ext.lstrip('.')}"))
        if not files:
            raise CaffeError(f"{path}: holds no .{ext.lstrip('.')} images; name others with --ext")
    return files, [load_image(file) for file in files]


def read_mean(path):
    """The mean in a file, (channels,) or (channels, height, width), as Transformer.set_mean takes it."""
    from caffe.weights import read_array

    mean = _load(path) if path.endswith(".npy") else read_array(path)
    mean = mean[0] if mean.ndim == 4 else mean
    if mean.ndim not in (1, 3):
        raise CaffeError(
            f"{path}: holds an array of shape {mean.shape}; wanted (channels,) or (channels, height, width)"
        )
    return mean


def show(names, scores, labels):
    words = [f"class {k}" for k in range(scores.shape[1])]
    if labels is not None:
        try:
            words = read_text(labels, MOST_LIST, "utf-8-sig", "replace").splitlines()
        except OSError as e:
            raise CaffeError(f"cannot read {labels}: {e.strerror}") from e
        if len(words) != scores.shape[1]:
            raise CaffeError(f"{labels}: names {len(words)} classes, the net has {scores.shape[1]}")
    for name, row in zip(names, scores):
        print(f"---------- Prediction for {name} ----------")
        for k in np.argsort(-row, kind="stable")[:5]:
            print(f'{row[k]:.4f} - "{words[k]}"')


def _load(path):
    try:
        with open_file(path) as file:
            return np.load(file, allow_pickle=False)
    except Exception as e:  # a damaged file raises nearly any exception
        raise CaffeError(f"{path}: no array can be read from it ({e})") from e


def _numbers(text, option):
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise CaffeError(f"{option} is {text!r}; wanted whole numbers separated by commas") from None


if __name__ == "__main__":
    sys.exit(main())
