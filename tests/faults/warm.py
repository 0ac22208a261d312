"""What the fork server imports before the first fork; nothing is computed here."""

import gc
import importlib
import pkgutil
import warnings

import ecofm

warnings.simplefilter("ignore")
for found in pkgutil.walk_packages(ecofm.__path__, "ecofm."):
    importlib.import_module(found.name)
for name in (
    "faiss", "lightly.loss", "matplotlib.backends.backend_agg", "matplotlib.pyplot", "mpl_toolkits",
    "pyarrow.dataset", "pyogrio", "rasterio.warp", "timm", "torch._dynamo", "train.config",
    "train.door", "uvicorn", "hydra.core.hydra_config",
    "safetensors.torch", "scipy.stats", "scipy.optimize", "scipy.spatial",
    "uvicorn.protocols.http.auto",
    "hypothesis", "numpy.testing", "pytest",
):  # fmt: skip
    importlib.import_module(name)
gc.collect()
gc.freeze()
