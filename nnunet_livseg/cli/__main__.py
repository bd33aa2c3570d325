"""``python -m nnunet_livseg.cli`` for places where the ``livseg`` script is not on the path."""

import sys

from nnunet_livseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
