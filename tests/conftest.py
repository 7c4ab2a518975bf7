import os
import signal
import tempfile

# Four devices on any machine, so that placement is tested without hardware.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("MPLBACKEND", "Agg")

# What one process has compiled, the others need not; the first to come here is their parent.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="lrjax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import hypothesis
import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

hypothesis.settings.register_profile("lrjax", deadline=None, derandomize=True)
hypothesis.settings.load_profile("lrjax")

# A shell that starts the tests in the background lets them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Scripts, of which the first needs PyTorch and was run once, by hand.
collect_ignore = ["golden/make_torch_sgd.py", "process_worker.py", "resume_worker.py"]
