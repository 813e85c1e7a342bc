"""Set before numpy, torch and llama.cpp are loaded: they read it once."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line does
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: threads of one would only wait for those of another
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
