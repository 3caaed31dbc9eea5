"""The folder of a study: what it was made by, so that results of two kinds never meet, and the results in it."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from eval import provenance
from eval.tables import write_text
from layers.bundled import whole
from tools.ablation import nets
from tools.ablation.plan import ARMS
from tools.ablation.unit import RESULT, read
from tools.make_walkers import VERSION as RENDERER

MANIFEST = "study.json"
ROOMS = ("caffe", "layers", "models", "eval", "tools")  # whose code decides what comes out


class FolderError(Exception):
    pass


def identity(size, validation, gpu):
    """What results depend on, seed and arm apart."""
    return {
        "commit": provenance.versions().get("commit", "none"),
        "code": code_digest(),
        "recipe": nets.digest(size),
        "renderer": RENDERER,
        "size": asdict(size),
        "people": "validation" if validation else "reported",
        "computed on": "CPU" if gpu is None else "GPU",
    }


def code_digest():
    """16 hexadecimal digits of the code, for what no commit tells: changes that are not committed, or no clone."""
    digest = hashlib.sha256()
    for room in ROOMS:
        for file in sorted((provenance.ROOT / room).rglob("*.py")):
            digest.update(f"{file.relative_to(provenance.ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def claim(folder, wanted, command):
    """Mark the folder with what its results depend on, or see that they depend on the same."""
    whole.make_folder(folder)
    file = folder / MANIFEST
    if not file.exists():
        if any(folder.glob("seed-*")):
            raise FolderError(f"{folder}: holds results but no {MANIFEST}; remove it or choose another --folder")
        write_text(file, json.dumps(wanted | {"command": command}, indent=1))
        return
    found = manifest(folder)
    wanted = json.loads(json.dumps(wanted))
    if found.get("commit") != wanted["commit"]:
        raise FolderError(
            f"{folder}: a study of commit {found.get('commit')}, this is {wanted['commit']}; "
            "check that commit out, or choose another --folder"
        )
    differing = [
        f"{name} {told(found.get(name))} there, {told(wanted[name])} wanted"
        for name in wanted
        if found.get(name) != wanted[name] and name != "size"
    ]
    there, size = found.get("size") or {}, wanted["size"]
    differing += [
        f"{name} {told(there.get(name))} there, {told(size[name])} wanted"
        for name in size
        if there.get(name) != size[name]
    ]
    if differing:
        raise FolderError(f"{folder}: a study of another kind ({'; '.join(differing)}); choose another --folder")


def told(value):
    return " ".join(value) if isinstance(value, list) else value


def manifest(folder):
    file = Path(folder) / MANIFEST
    try:
        found = json.loads(file.read_text())
        if not isinstance(found, dict):
            raise ValueError
        return found
    except FileNotFoundError:
        raise FolderError(f"{folder}: holds no study ({MANIFEST} is missing)") from None
    except ValueError:
        raise FolderError(f"{file}: not the record of a study; remove {folder} or choose another --folder") from None


def results(folder):
    """{arm: {seed: result}} of all that is finished."""
    found: dict = {}
    for arm in ARMS:
        for file in Path(folder).glob(f"seed-*/{arm}/{RESULT}"):
            result = read(file)
            found.setdefault(arm, {})[result["seed"]] = result
    return {arm: dict(sorted(seeds.items())) for arm, seeds in found.items()}
