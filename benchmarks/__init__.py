"""attrib beside Captum and beside hand-written PyTorch: one command prints the ratios."""

import os

# NumPy's linear algebra has threads of its own, whose idle spinning counts as CPU time: Captum asks
# it for quadrature nodes at every call. They are set when NumPy is first imported, which is next.
for _library in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_library, "1")
