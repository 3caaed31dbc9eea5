"""Files that are whole or not there: caffe/whole.py of this clone, whichever Caffe `import caffe` finds."""

import importlib.util
from pathlib import Path
from typing import Any

_PATH = Path(__file__).resolve().parent.parent / "caffe" / "whole.py"
_SPEC: Any = importlib.util.spec_from_file_location("layers._whole", _PATH)
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

atomic_path = _MODULE.atomic_path
make_folder = _MODULE.make_folder
put = _MODULE.put
sync = _MODULE.sync
sync_folder = _MODULE.sync_folder
write = _MODULE.write
