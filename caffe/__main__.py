"""`python -m caffe train ...`: the same as the command `caffe train ...`."""

import sys

from caffe.cli import main

sys.exit(main())
